//! docs/grpcurl.md does what it says: every command of the page runs against a living system, through a real
//! reflection client, and shows what the page says it shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use windlass_integration::{Name, World};
use windlass_proto::v1::Phase;

const PAGE: &str = include_str!("../../docs/grpcurl.md");

/// The page's commands, each block with what it is to show.
fn blocks() -> Vec<(String, Vec<String>)> {
    let mut blocks = Vec::new();
    for part in PAGE.split("```sh\n").skip(1) {
        let (commands, rest) = part.split_once("```\n").expect("a closed block");
        let shows = rest
            .strip_prefix("<!-- shows: ")
            .and_then(|rest| rest.split_once(" -->"))
            .map(|(shows, _)| shows.split(" / ").map(str::to_owned).collect());
        blocks.push((commands.to_owned(), shows.unwrap_or_default()));
    }
    blocks
}

/// Our own binaries, the stand-in for grpcurl, and psql.
fn path() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let psql: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|version| version.unwrap().path().join("bin"))
        .collect();
    let inherited = std::env::var("PATH").unwrap_or_default();
    let mut path = format!("{}", here.join("guide").display());
    for dir in psql {
        path += &format!(":{}", dir.display());
    }
    path + ":" + &inherited
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_shows_what_the_page_says() {
    let world = World::start().await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;

    let (setup, rest) = {
        let mut all = blocks();
        let setup = all.remove(0).0;
        (setup, all)
    };
    assert!(rest.len() > 8, "the page has lost its commands");
    for (commands, shows) in rest {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &format!("{setup}\n{commands}")])
            .env("PATH", path())
            .env("ID", &id)
            .env("WINDLASS_TOKEN", &world.token)
            .env("WINDLASS_SERVICE_TOKEN", &world.token)
            .env("WINDLASS_ADDR", world.services.address(Name::Api))
            .env("DATABASE_URL", world.postgres.url());
        for name in Name::ALL {
            let variable = format!("WINDLASS_{}_ADDR", name.as_str().to_uppercase());
            bash.env(variable, world.services.address(name));
        }
        let output = tokio::task::spawn_blocking(move || bash.output())
            .await
            .unwrap()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}\n{shown}");
        for fragment in shows {
            assert!(
                shown.contains(&fragment),
                "{commands}\nlacks {fragment}:\n{shown}"
            );
        }
    }
}

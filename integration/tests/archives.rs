//! Archives read without starting their workspace: by the real `windlass`, through api and agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use sha2::{Digest as _, Sha256};
use windlass_integration::{World, home};
use windlass_proto::v1::{DesiredState, Phase};

#[track_caller]
fn fails(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{text}");
}

/// Changes a bit in the middle of an archive.
async fn damage(world: &World, key: &str) {
    let store = world.store().await;
    let mut data = store.get_small(key, 100 << 20).await.unwrap().to_vec();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    store.put_small(key, data).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_downloaded_and_verified_without_a_start() {
    let world = World::start().await;
    let id = world.create_as("demo", DesiredState::Standby).await.id;
    world.phase(&id, Phase::Standby).await;
    home::fill(&world.home(&id), 3);
    home::ballast(&world.home(&id), 40);
    let before = home::picture(&world.home(&id));
    world.desire(&id, DesiredState::Archived).await;
    let key = world.phase(&id, Phase::Archived).await.archive_key;
    let run = |args: &[&str]| world.windlass_as(&world.token, args);

    let file = world.dir().join("home.tar.zst");
    let path = file.to_str().unwrap().to_owned();
    let download = ["archive", "download", "demo", "-f", &path, "-o", "json"];
    let done = run(&download);
    assert!(done.status.success(), "{done:?}");
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let data = std::fs::read(&file).unwrap();
    assert_eq!(told["key"], key);
    assert_eq!(told["bytes"], data.len());
    assert_eq!(told["sha256"], hex::encode(Sha256::digest(&data)));

    // What came is the home.
    let unpacked = world.dir().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("sh")
        .args([
            "-c",
            "zstd -dc \"$0\" | tar --numeric-owner -xpf - -C \"$1\"",
        ])
        .args([&file, &unpacked])
        .output()
        .unwrap();
    assert!(tar.status.success(), "{tar:?}");
    assert_eq!(home::picture(&unpacked), before);

    fails(&run(&download), 1, "--force");
    let piped = run(&["archive", "download", "demo", "--archive", "1", "-f", "-"]);
    assert!(piped.status.success() && piped.stdout == data);
    let verified = run(&["archive", "verify", "demo", "--all", "-o", "id"]);
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(String::from_utf8(verified.stdout).unwrap().trim(), key);

    // Somebody else has no such workspace, whatever they know of it.
    world.sql(
        "INSERT INTO users (name) VALUES ('bob');
         INSERT INTO tokens (user_id, sha256)
            SELECT id, sha256('bobs-token') FROM users WHERE name = 'bob'",
    );
    let stolen = ["archive", "verify", &id, "--archive", &key];
    fails(&world.windlass_as("bobs-token", &stolen), 3, "");
    // Nor does one's own workspace open another's archive.
    let other = world.create_as("other", DesiredState::Archived).await.id;
    let crossed = run(&["archive", "verify", &other, "--archive", &key]);
    fails(&crossed, 2, "same workspace");

    // Damage in the middle is found, and nothing takes the file's name.
    damage(&world, &key).await;
    fails(&run(&["archive", "verify", "demo"]), 1, "ARCHIVE_CORRUPTED");
    let again = world.dir().join("again.tar.zst");
    let bad = ["archive", "download", "demo", "-f", again.to_str().unwrap()];
    fails(&run(&bad), 1, "ARCHIVE_CORRUPTED");
    let left = std::fs::read_dir(world.dir()).unwrap();
    let names = left.map(|e| e.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|n| n.starts_with("again")).collect();
    assert!(left.is_empty(), "{left:?}");

    let missing = key.replace(&key[key.len() - 20..key.len() - 13], "0000000");
    let missing = run(&["archive", "verify", "demo", "--archive", &missing]);
    fails(&missing, 1, "ARCHIVE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_home_is_told_and_the_archive_before_it_can_be_taken() {
    let world = World::start().await;
    let id = world.create_as("demo", DesiredState::Standby).await.id;
    world.phase(&id, Phase::Standby).await;
    home::fill(&world.home(&id), 1);
    let before = home::picture(&world.home(&id));
    world.desire(&id, DesiredState::Archived).await;
    world.phase(&id, Phase::Archived).await;
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
    std::fs::write(world.home(&id).join("later"), "2").unwrap();
    world.desire(&id, DesiredState::Archived).await;
    let newest = world.phase(&id, Phase::Archived).await.archive_key;
    damage(&world, &newest).await;

    let run = |args: &[&str]| world.windlass_as(&world.token, args);
    let started = run(&["ws", "start", "demo"]);
    fails(&started, 1, "ArchiveCorrupted");
    fails(&started, 1, "windlass recover demo --archive N");
    let nothing = run(&["recover", "demo", "--archive", "3"]);
    fails(&nothing, 3, "the workspace has 2");
    world.windlass(&["recover", "demo", "--archive", "2"]);
    world.phase(&id, Phase::Running).await;
    assert_eq!(home::picture(&world.home(&id)), before);
}

use std::os::unix::net::UnixListener;
use std::time::Duration;

use windlass_local::Error;
use windlass_local::docker::{Engine, EngineConfig, start_engine};
use windlass_local::image::ensure_demo_image;

#[tokio::test]
async fn a_missing_engine_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let error = Engine::locate(Some(&socket)).await.unwrap_err();
    assert!(matches!(error, Error::DockerMissing { .. }), "{error}");
    drop(UnixListener::bind(&socket).unwrap());
    let error = Engine::locate(Some(&socket)).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

/// Needs root and dockerd, as the integration tests do.
#[tokio::test]
async fn a_private_engine_runs_the_demo_image() {
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        dir: dir.path().join("engine"),
        die_with_parent: true,
        // Beside whatever engine the machine has: its bridge and firewall stay untouched.
        isolated_network: true,
        extra_args: Vec::new(),
    };
    let private = start_engine(&config).await.unwrap();
    let again = start_engine(&config).await.unwrap();
    assert!(again.process().is_none());
    let engine = private.engine();
    let image = "windlass/demo:latest";
    assert!(ensure_demo_image(engine, image).await.unwrap());
    assert!(!ensure_demo_image(engine, image).await.unwrap());

    let run = [
        "run",
        "-d",
        "--network=none",
        "-v",
        "home:/home/coder",
        image,
    ];
    let id = engine.cli(run).await.unwrap();
    let fetch =
        "until wget -qO- 127.0.0.1:8080; do usleep 20000; done; id -u; stat -c %u /home/coder";
    let exec = engine.cli(["exec", &id, "sh", "-c", fetch]);
    let answer = tokio::time::timeout(Duration::from_secs(30), exec);
    let answer = answer.await.unwrap().unwrap();
    assert!(answer.contains("<title>Windlass</title>"), "{answer}");
    assert!(answer.ends_with("1000\n1000"), "{answer}");
    engine.cli(["stop", "-t", "60", &id]).await.unwrap();
    let format = ["inspect", "--format", "{{.State.ExitCode}}", &id];
    assert_eq!(engine.cli(format).await.unwrap(), "0", "it was killed");
    private.stop().await;

    let private = start_engine(&config).await.unwrap();
    let image_is_there = ensure_demo_image(private.engine(), image).await.unwrap();
    assert!(!image_is_there, "the image did not survive a restart");
    private.stop().await;
}

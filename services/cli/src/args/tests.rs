use std::time::Duration;

use clap::CommandFactory as _;

use super::*;
use crate::values::Ttl;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound_and_tells_the_exit_codes() {
    Cli::command().debug_assert();
    let help = Cli::command().render_help().to_string();
    assert!(help.contains("5  it took longer"), "{help}");
    assert!(!help.contains("up-root"), "{help}");
}

#[test]
fn short_names_and_global_flags_anywhere() {
    let cli = parse("windlass ws start demo -o json --no-wait --addr http://x:1").unwrap();
    assert_eq!(cli.output, Output::Json);
    assert_eq!(cli.connection.addr.as_deref(), Some("http://x:1"));
    let Command::Workspace(WorkspaceCommand::Start(start)) = cli.command else {
        panic!("not a start");
    };
    assert!(start.wait.no_wait);
    assert_eq!(start.wait.timeout, Duration::from_secs(1800));
}

#[test]
fn create_reads_its_values() {
    let cli = parse(
        "windlass workspace create demo --desired archived --cpu 1.5 --memory 2GiB --pids 100 \
         --standby-ttl never --archive-ttl 7d --checkpoint-interval 15m --request-id 0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01",
    )
    .unwrap();
    let Command::Workspace(WorkspaceCommand::Create(create)) = cli.command else {
        panic!("not a create");
    };
    assert_eq!(create.desired, Desired::Archived);
    assert_eq!(create.limits.cpu, Some(1500));
    assert_eq!(create.limits.memory, Some(2 << 30));
    assert_eq!(create.ttls.standby_ttl, Some(Ttl::Never));
    let interval = create.checkpoints.checkpoint_interval;
    assert_eq!(interval, Some(Duration::from_secs(900)));
    assert!(create.request_id.is_some());
}

#[test]
fn only_one_way_out_of_data_loss() {
    assert!(parse("windlass recover demo --start-empty").is_ok());
    assert!(parse("windlass recover demo").is_ok());
    assert!(parse("windlass recover demo --start-empty --adopt-volume").is_err());
    assert!(parse("windlass recover demo --archive k --adopt-volume").is_err());
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "windlass archive download x",
        "windlass rebuild",
        "windlass rebuild --apply",
        "windlass archive verify x --all --archive 1",
        "windlass",
        "windlass ws create",
        "windlass ws create x --cpu lots",
        "windlass ws create x --request-id 7",
        "windlass ws keep-awake x tomorrow",
        "windlass up --port-base 65500",
        "windlass -o yaml ws list",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1::{self, ContainerState, JobState};

use crate::harness::{Fixture, context, refused};

async fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_running_to_archived_and_back() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let home = f.home(workspace).await;
    let root = std::fs::metadata(&home).unwrap();
    assert_eq!(
        (root.uid(), root.gid(), root.mode() & 0o7777),
        (1000, 1000, 0o755)
    );

    // Running.
    let op = Uuid::new_v4();
    let mut request = f.start_request(workspace, op, volume_id);
    request.limits = Some(v1::Limits {
        cpu_millis: 500,
        memory_bytes: 64 << 20,
        pids: 100,
    });
    let job = f
        .client()
        .start(request)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(job.op_id, op.to_string());
    f.succeeded(workspace).await;
    let all = f.containers().await;
    assert_eq!(all.len(), 1);
    let container = &all[0];
    assert_eq!(container.state(), ContainerState::Running);
    assert_eq!(container.name, f.container(workspace));
    assert_eq!(container.workspace_id, workspace.to_string());
    assert_eq!(
        (container.op_id.as_str(), container.attempt),
        (op.to_string().as_str(), 0)
    );
    assert!(container.start_time.is_some() && container.finish_time.is_none());
    let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} \
                  {{.HostConfig.PidsLimit}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Init}} \
                  {{.HostConfig.RestartPolicy.Name}}";
    let limits = f
        .docker(&["inspect", "--format", format, &container.container_id])
        .await;
    assert_eq!(
        limits,
        "500000000 67108864 67108864 100 [no-new-privileges] true no"
    );

    // The fresh home got what the image has, and is served.
    let upstream = v1::GetUpstreamRequest {
        workspace_id: workspace.to_string(),
    };
    let address = f.client().get_upstream(upstream.clone()).await.unwrap();
    let address = address.into_inner().address;
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let begun = std::time::Instant::now();
    let page = loop {
        match get(&address, "/index.html").await {
            Ok(page) if page.contains("200 OK") => break page,
            other => assert!(begun.elapsed() < Duration::from_secs(60), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(page.contains("Windlass"));

    // The same call again changes nothing.
    let again = f.start_request(workspace, op, volume_id);
    f.client().start(again).await.unwrap();
    f.succeeded(workspace).await;
    assert_eq!(f.containers().await[0].container_id, container.container_id);

    // Stopped: the container goes, the home stays.
    f.stopped_container(workspace).await;
    assert!(f.containers().await.is_empty());
    f.stopped_container(workspace).await;
    let gone = f.client().get_upstream(upstream).await;
    refused(gone, Code::NotFound, "NOT_FOUND");
    assert!(home.join("index.html").exists());

    // Archived.
    std::fs::write(home.join("notes"), "keep me").unwrap();
    std::fs::create_dir(home.join("dir")).unwrap();
    std::fs::set_permissions(home.join("dir"), std::fs::Permissions::from_mode(0o2750)).unwrap();
    symlink("/does/not/exist", home.join("link")).unwrap();
    let archive = f.archived(workspace, volume_id).await;
    assert_eq!(archive.volume_id, volume_id.to_string());
    assert_eq!(
        archive.key,
        format!("w/{workspace}/{}/home.tar.zst", archive.archive_op_id)
    );
    assert!(archive.entries >= 4 && archive.bytes > 0 && archive.create_time.is_some());
    let listed = f.archives(true).await.unwrap();
    assert_eq!(listed.archives, std::slice::from_ref(&archive));
    assert!(listed.loose.is_empty(), "{:?}", listed.loose);
    assert_eq!(f.volumes().await.len(), 1);

    // The volume goes once the archive holds it.
    let delete = v1::DeleteVolumeRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: volume_id.to_string(),
        archive_key: archive.key.clone(),
        sha256: archive.sha256.clone(),
        discard_home: false,
    };
    let job = f.client().delete_volume(delete.clone()).await.unwrap();
    assert_eq!(job.into_inner().job.unwrap().state(), JobState::Succeeded);
    assert!(f.volumes().await.is_empty());
    f.client().delete_volume(delete).await.unwrap();

    // And comes back.
    let restore = Uuid::new_v4();
    let request = v1::RestoreRequest {
        context: context(workspace, restore),
        archive_key: archive.key.clone(),
        replaces_volume_id: String::new(),
    };
    f.client().restore(request).await.unwrap();
    f.succeeded(workspace).await;
    let home = f.home(workspace).await;
    assert_eq!(
        std::fs::read_to_string(home.join("notes")).unwrap(),
        "keep me"
    );
    let dir = std::fs::metadata(home.join("dir")).unwrap();
    assert_eq!(dir.mode() & 0o7777, 0o2750);
    assert_eq!(
        std::fs::read_link(home.join("link")).unwrap().to_str(),
        Some("/does/not/exist")
    );
    let volumes = f.volumes().await;
    assert_eq!(volumes[0].volume_id, restore.to_string());
    for refresh in [false, true] {
        let restores = f.archives(refresh).await.unwrap().restores;
        assert_eq!(restores.len(), 1, "refresh: {refresh}");
        assert_eq!(restores[0].op_id, restore.to_string());
        assert_eq!(restores[0].archive_key, archive.key);
    }
    f.started(workspace, restore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_archive_becomes_an_empty_home() {
    let f = Fixture::new().await;
    let (workspace, op) = (Uuid::new_v4(), Uuid::new_v4());
    let request = v1::CreateEmptyArchiveRequest {
        context: context(workspace, op),
        label: None,
    };
    f.client().create_empty_archive(request).await.unwrap();
    f.succeeded(workspace).await;
    let archives = f.archives(true).await.unwrap().archives;
    assert_eq!((archives.len(), archives[0].volume_id.as_str()), (1, ""));
    let request = v1::RestoreRequest {
        context: context(workspace, Uuid::new_v4()),
        archive_key: archives[0].key.clone(),
        replaces_volume_id: String::new(),
    };
    f.client().restore(request).await.unwrap();
    f.succeeded(workspace).await;
    let home = f.home(workspace).await;
    assert!(std::fs::read_dir(&home).unwrap().next().is_none());
    assert_eq!(std::fs::metadata(&home).unwrap().uid(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_hears_of_it() {
    let f = Fixture::new().await;
    let mut hints = f
        .client()
        .watch(v1::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let (workspace, volume_id) = f.provisioned().await;
    f.started(workspace, volume_id).await;
    let mut wanted = vec!["volume/create", "job/succeeded", "container/start"];
    let listening = async {
        while !wanted.is_empty() {
            let hint = hints.message().await.unwrap().expect("more hints");
            if hint.workspace_id == workspace.to_string() {
                wanted.retain(|kind| *kind != hint.kind);
            }
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(20), listening).await;
    assert!(heard.is_ok(), "not heard of");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_describes_itself() {
    let f = Fixture::new().await;
    f.archives(true).await.unwrap();
    let host = f.host().await;
    assert!(
        !host.engine_version.is_empty() && host.engine_error.is_empty(),
        "{host:?}"
    );
    assert!(
        host.cpus > 0 && host.memory_bytes > 0 && host.volumes_free_bytes > 0,
        "{host:?}"
    );
    assert!(
        host.store_error.is_empty() && host.store_list_time.is_some(),
        "{host:?}"
    );
}

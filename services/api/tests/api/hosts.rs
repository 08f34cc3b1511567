//! HostService.

use tonic::Code;
use windlass_db::{Channel, Pool};
use windlass_proto::v1;

use crate::common::{
    NOBODYS_ID, PATIENCE, create, database, delete, env, eventually, invalid, refused, serve,
};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_registered_listed_and_cordoned() {
    let env = env().await;
    let (mut root, mut ann) = (env.server.hosts("root"), env.server.hosts("ann"));
    let register = |address: &str| v1::RegisterHostRequest {
        name: "2nd".to_owned(),
        address: address.to_owned(),
    };
    let made = root
        .register_host(register("http://10.0.0.5:7401/"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.address, "http://10.0.0.5:7401");
    assert!(!made.cordoned && made.create_time.is_some());
    assert_eq!((made.observe_time, made.workspace_count), (None, 0));
    let moved = root.register_host(register("http://agent.example:7401"));
    let moved = moved.await.unwrap().into_inner();
    assert_eq!(moved.id, made.id);
    assert_eq!(moved.address, "http://agent.example:7401");

    let first = create(&env.ann, "a").await;
    let second = create(&env.ann, "b").await;
    assert_ne!(first.host_id, second.host_id);
    delete(&env.ann, &first.id).await.unwrap();
    env.db
        .sql("UPDATE hosts SET last_observed_at = now(), observe_error = 'refused' WHERE name = 'h1'")
        .await;
    // Rather where something begins, though the other has fewer.
    for n in 0..2 {
        let made = create(&env.ann, &format!("b{n}")).await;
        assert_ne!(made.host_id, moved.id);
        delete(&env.ann, &made.id).await.unwrap();
    }
    env.db
        .sql("UPDATE hosts SET last_observed_at = now() WHERE name = '2nd'")
        .await;
    let hosts = ann.list_hosts(v1::ListHostsRequest {}).await.unwrap();
    let hosts = hosts.into_inner().hosts;
    let names: Vec<_> = hosts.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["2nd", "h1"]);
    assert_eq!(hosts[1].observe_error, "refused");
    assert!(hosts[1].observe_time.is_some());
    let counts: Vec<_> = hosts.iter().map(|h| h.workspace_count).collect();
    assert_eq!(counts.iter().sum::<u32>(), 1);

    let id = made.id.clone();
    let cordoned = root.cordon_host(v1::CordonHostRequest { id: id.clone() });
    assert!(cordoned.await.unwrap().into_inner().cordoned);
    for n in 0..3 {
        assert_eq!(
            create(&env.ann, &format!("c{n}")).await.host_id,
            hosts[1].id
        );
    }
    let uncordoned = root.uncordon_host(v1::UncordonHostRequest { id });
    assert!(!uncordoned.await.unwrap().into_inner().cordoned);
    assert_eq!(create(&env.ann, "d").await.host_id, made.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let env = env().await;
    let (mut root, mut ann) = (env.server.hosts("root"), env.server.hosts("ann"));
    let register = |name: &str, address: &str| v1::RegisterHostRequest {
        name: name.to_owned(),
        address: address.to_owned(),
    };
    let good = register("h2", "http://10.0.0.5:7401");
    refused(
        ann.register_host(good).await,
        Code::PermissionDenied,
        "ADMIN_ONLY",
    );
    for id in [NOBODYS_ID, "x"] {
        let id = id.to_owned();
        let cordon = v1::CordonHostRequest { id: id.clone() };
        refused(
            ann.cordon_host(cordon).await,
            Code::PermissionDenied,
            "ADMIN_ONLY",
        );
        let uncordon = v1::UncordonHostRequest { id };
        refused(
            ann.uncordon_host(uncordon).await,
            Code::PermissionDenied,
            "ADMIN_ONLY",
        );
    }
    let address = "http://10.0.0.5:7401";
    invalid(root.register_host(register("H", address)).await, "name");
    invalid(root.register_host(register("", address)).await, "name");
    for wrong in ["10.0.0.5", "https://10.0.0.5:7401"] {
        let register = register("h2", wrong);
        invalid(root.register_host(register).await, "address");
    }
    for id in [NOBODYS_ID, "x"] {
        let id = id.to_owned();
        let cordon = root.cordon_host(v1::CordonHostRequest { id: id.clone() });
        let cordon = cordon.await;
        let uncordon = root.uncordon_host(v1::UncordonHostRequest { id }).await;
        for result in [cordon, uncordon] {
            match result.as_ref().unwrap_err().code() {
                Code::InvalidArgument => invalid(result, "id"),
                _ => refused(result, Code::NotFound, "HOST_NOT_FOUND"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_agent_is_the_default_host() {
    let db = database().await;
    let mut config = db.api_config();
    config.agent_address = Some("http://127.0.0.1:7401".to_owned());
    let server = serve(config.clone()).await;
    let ready = || async { server.readyz().await.0 == 200 };
    eventually("ready", ready).await;
    let hosts = "SELECT address FROM hosts WHERE name = 'default'";
    assert_eq!(db.sql(hosts).await, ["http://127.0.0.1:7401"]);

    // A replica with a newer address moves it.
    let mut newer = db.api_config();
    newer.agent_address = Some("http://127.0.0.1:7499".to_owned());
    let replica = serve(newer).await;
    eventually("ready", || async { replica.readyz().await.0 == 200 }).await;
    assert_eq!(db.sql(hosts).await, ["http://127.0.0.1:7499"]);
}

/// Or it would be found when the observer looks next by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_observer_hears_of_a_host() {
    let env = env().await;
    let pool = Pool::new(&env.db.url(), 2).unwrap();
    let mut observer = pool.listen(Channel::Observer).await.unwrap();
    let host = v1::RegisterHostRequest {
        name: "2nd".to_owned(),
        address: "http://10.0.0.5:7401".to_owned(),
    };
    env.server.hosts("root").register_host(host).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, observer.next()).await;
    assert_eq!(heard.expect("a hint"), Some(()));
}

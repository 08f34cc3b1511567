//! From a pass to a running service: leadership, readiness, supervised tasks and the gRPC server, put
//! together once for all coordinators.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_db::Pool;
use windlass_proto::FILE_DESCRIPTOR_SET;
use windlass_service::{Frame, GrpcServer, Readiness, ServerArgs, Service, Tasks};

use crate::{
    config::CoordinatorArgs,
    coordinator::{Coordinator, Handle},
    hints::Waker,
    run::{Pass, Periods},
};

/// What a service brings of its own.
#[derive(Debug)]
pub struct Setup<P> {
    /// Its name, which is that of its leader rows.
    pub service: Service,
    /// The database, as its own role.
    pub pool: Pool,
    /// How often passes are made.
    pub periods: Periods,
    /// For each shard, what else asks for a pass and what a pass does; one of a service without shards.
    pub passes: Vec<(Waker, P)>,
}

/// Runs a coordinator until `shutdown`: its passes while it leads, and the gRPC service that `add_service`
/// makes of the handle.
///
/// # Errors
/// When the listener cannot be used, a task ends unasked or a server fails.
pub async fn serve<P: Pass>(
    setup: Setup<P>,
    args: &CoordinatorArgs,
    server: &ServerArgs,
    listener: TcpListener,
    shutdown: CancellationToken,
    add_service: impl FnOnce(GrpcServer, Handle<P>) -> GrpcServer,
) -> anyhow::Result<()> {
    let readiness = Readiness::new();
    let mut tasks = Tasks::new(shutdown.clone());
    let (handle, passes) = Coordinator {
        name: setup.service.name,
        holder: args.holder(listener.local_addr()?),
        pool: setup.pool,
        lease_ttl: args.lease_ttl,
        periods: setup.periods,
        passes: setup.passes,
    }
    .start(readiness.clone(), shutdown);
    tasks.spawn("passes", passes);

    let grpc = GrpcServer::new(FILE_DESCRIPTOR_SET, args.authenticator(), server);
    let grpc = add_service(grpc, handle);
    Frame {
        grpc,
        readiness,
        tasks,
    }
    .run(server, listener)
    .await
}

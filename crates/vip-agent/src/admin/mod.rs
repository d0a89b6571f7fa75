//! The admin API: who may call what, and what each call does. One gRPC service and
//! one file per subject.

mod call;
mod events;
mod host;
mod logins;
mod nodes;
mod overview;
mod servers;
mod sight;
mod streams;
mod tokens;
mod vips;
mod warnings;

pub(crate) use call::{AdminService, Desk};

use tonic::service::Routes;
use tonic_reflection::server::v1::ServerReflectionServer;
use vip_proto::v1::host_server::HostServer;
use vip_proto::v1::logins_server::LoginsServer;
use vip_proto::v1::nodes_server::NodesServer;
use vip_proto::v1::overview_server::OverviewServer;
use vip_proto::v1::servers_server::ServersServer;
use vip_proto::v1::tokens_server::TokensServer;
use vip_proto::v1::vips_server::VipsServer;

/// Largest request of a person: a virtual server with all its real servers.
const MAX_COMMAND: usize = 64 << 10;
/// Largest of root on this host: a part of a backup, and a little around it. Who may
/// not restore is refused before anything is read.
const MAX_PART: usize = 2 * overview::PART;

/// What people are served, and the standard services beside it.
pub(crate) async fn routes(admin: &AdminService) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::new(health);
    macro_rules! serve {
        ($($server:ident up to $most:ident),+) => {$(
            reporter.set_serving::<$server<AdminService>>().await;
            let server = $server::new(admin.clone()).max_decoding_message_size($most);
            routes = routes.add_service(server);
        )+};
    }
    serve!(
        OverviewServer up to MAX_COMMAND,
        NodesServer up to MAX_COMMAND,
        VipsServer up to MAX_COMMAND,
        ServersServer up to MAX_COMMAND,
        TokensServer up to MAX_COMMAND,
        LoginsServer up to MAX_COMMAND,
        HostServer up to MAX_PART
    );
    routes.add_service(reflection())
}

fn reflection() -> ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    let builder = tonic_reflection::server::Builder::configure();
    let builder = builder.register_encoded_file_descriptor_set(vip_proto::DESCRIPTOR);
    builder.build_v1().expect("the descriptor set is our own")
}

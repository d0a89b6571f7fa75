//! The admin API: who may call what, and what each call does.

mod ca;
mod call;
mod doctor;
mod events;
mod membership;
mod recovery;
mod reshape;
mod service;
mod streams;
mod views;
mod vips;

pub(crate) use call::{AdminService, Desk};

use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use vip_proto::v1::admin_server::AdminServer;

/// The standard services beside our own.
pub(crate) async fn health_and_reflection()
-> (HealthServer<impl Health>, ServerReflectionServer<impl ServerReflection>) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AdminServer<AdminService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(vip_proto::DESCRIPTOR)
        .build_v1()
        .expect("the descriptor set is our own");
    (health, reflection)
}

//! What every command has: a connection, a form of output, a time.

use crate::Failure;
use crate::cli::Format;
use crate::output::print;
use std::time::Duration;
use tonic::Request;
use tonic::transport::Channel;
use vip_proto::v1;
use vip_proto::v1::overview_client::OverviewClient;

pub(crate) struct Ctl {
    pub(crate) channel: Channel,
    pub(crate) format: Format,
    pub(crate) timeout: Duration,
}

impl Ctl {
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    pub(crate) fn done(&self, value: serde_json::Value, text: &str) -> Result<(), Failure> {
        print(self.format, &value, |_| text.to_owned())
    }

    /// The cluster at a glance.
    pub(crate) async fn overview(&self) -> Result<v1::StatusReply, Failure> {
        let request = self.request(v1::StatusRequest {});
        Ok(OverviewClient::new(self.channel.clone()).status(request).await?.into_inner())
    }

    /// For people; scripts look at `fresh`.
    pub(crate) fn warn_of_age(&self, fresh: bool) {
        if !fresh && self.format == Format::Table {
            eprintln!("vipctl: no leader answered: this is what this node knew last");
        }
    }
}

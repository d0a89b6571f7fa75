//! `vip.v1.Tables`: what this host forwards by, for other members.

use super::Forward;
use std::time::Duration;
use tonic::{Request, Response, Status};
use vip_core::{Generation, Programmed, ServerUid};
use vip_proto::v1;

/// The longest that a call waits here, whatever it asks for: a member must not collect
/// calls that wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long the guard may take to say what it counted.
const COUNT_LIMIT: Duration = Duration::from_millis(250);

impl Forward {
    /// What is asked of this host, however it was asked.
    pub(crate) async fn look(&self, asked: v1::LookAtTableRequest) -> v1::LookAtTableReply {
        let v1::LookAtTableRequest { server, wanted, wait_us, count } = asked;
        let server = ServerUid(server);
        let wait = Duration::from_micros(wait_us).min(LONGEST_WAIT);
        let is = self.wait_for(server, wanted.map(Generation), wait).await;
        let counts = if count { self.counted(server, COUNT_LIMIT).await } else { None };
        let counts = counts.unwrap_or_default().into_iter().map(Into::into).collect();
        let reply = v1::LookAtTableReply { counts, ..Default::default() };
        match is {
            Programmed::InForce(generation) => {
                let (_, flaw) = self.how(server);
                v1::LookAtTableReply { in_force: Some(generation.0), flaw, ..reply }
            }
            Programmed::Refused { wanted: Some(refused), .. }
                if wanted.is_some_and(|wanted| refused.0 < wanted) =>
            {
                reply
            }
            // An old guard has nothing of it.
            Programmed::Refused { wanted: None, .. }
                if wanted.is_none() && !self.counters().failed =>
            {
                v1::LookAtTableReply { nothing: true, ..reply }
            }
            Programmed::Refused { why, .. } => v1::LookAtTableReply { refused: Some(why), ..reply },
            Programmed::NotYet => reply,
            Programmed::Nothing => v1::LookAtTableReply { nothing: true, ..reply },
        }
    }
}

#[tonic::async_trait]
impl v1::tables_server::Tables for Forward {
    async fn look_at_table(
        &self,
        request: Request<v1::LookAtTableRequest>,
    ) -> Result<Response<v1::LookAtTableReply>, Status> {
        Ok(Response::new(self.look(request.into_inner()).await))
    }
}

//! The loop's last steps before another program of its process goes on; see
//! [`crate::hand_over`].

use super::{House, Loop};
use crate::hand_over::{
    Approach, Estate, HandOverError, HeldSignals, LAST_WORD, Left, Step, Succession,
    WRITTEN_TIMEOUT,
};
use crate::lock;
use crate::session::Unread;
use crate::tables::Resume;
use crate::told::LeftForwarder;
use std::ops::ControlFlow;
use tokio::time::timeout;
use tracing::error;
use vip_core::chain;

impl Loop {
    /// Takes the next step towards another program; [`ControlFlow::Break`]: it is to stop.
    pub(super) async fn approached(
        &mut self,
        left: Left,
        (house, succession): (&House, &Succession),
        approach: &mut Approach,
        stop: impl Future<Output = ()>,
    ) -> ControlFlow<()> {
        let result = match left.map(|step| *step) {
            Ok(Step::Still((forwarder, resume))) => {
                let estate = self.estate(house, forwarder, None);
                estate.map(|estate| approach.ask(succession, estate, resume))
            }
            Ok(Step::Accepted(left)) => {
                let _held = HeldSignals::hold();
                // One that came before is on its way here.
                if timeout(LAST_WORD, stop).await.is_ok() {
                    return ControlFlow::Break(());
                }
                self.hand_over(house, succession, left).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result
            && !(error.passes() && approach.begin_again(&self.tables))
        {
            error!(
                error = %chain(&error),
                "the guard stays the program that it is; `systemctl restart vipd-guard vipd` is \
                 the other way, and moves VIPs before"
            );
        }
        ControlFlow::Continue(())
    }

    /// Returns if another program does not go on from here; this one does then.
    async fn hand_over(
        &mut self,
        house: &House,
        succession: &Succession,
        (forwarder, resume): (LeftForwarder, Resume),
    ) -> Result<(), HandOverError> {
        let mut unread = None;
        if let Some(session) = &mut self.session {
            let (messages, rest) = session.pause().await;
            for message in messages {
                self.said(message).await;
            }
            unread = Some(rest.ok_or(HandOverError::Agent)?);
        }
        let error = match self.is_told().await {
            Ok(()) => match self.estate(house, forwarder, unread.as_ref()) {
                Ok(estate) => estate.pass_on(succession),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if let (Some(session), Some(unread)) = (&mut self.session, unread) {
            session.read_on(unread, &self.tables);
        }
        drop(resume);
        Err(error)
    }

    /// Waits until the agent has all that it was told.
    async fn is_told(&mut self) -> Result<(), HandOverError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let written = timeout(WRITTEN_TIMEOUT, session.written()).await;
        written.ok().filter(|written| *written).map(|_| ()).ok_or(HandOverError::Agent)
    }

    /// All that there is, as it is.
    fn estate(
        &self,
        house: &House,
        forwarder: LeftForwarder,
        unread: Option<&Unread>,
    ) -> Result<Estate, HandOverError> {
        if self.tables.is_stirred() {
            return Err(HandOverError::Busy);
        }
        let session = self.session.as_ref().map(|session| session.leave(unread));
        let leave = HandOverError::Leave;
        Ok(Estate {
            socket: house.socket.clone(),
            socket_lock: lock::leave(&house.socket_lock).map_err(leave)?,
            namespace: house.namespace.leave().map_err(leave)?,
            door: house.door.leave().map_err(leave)?,
            guard: self.guard.clone(),
            host: self.host.leave().map_err(leave)?,
            session: session.transpose().map_err(leave)?,
            agent_seen_at: self.agent_seen_at,
            forwarder,
        })
    }
}

//! What goes wrong, and when: as a test has planned it.

use std::collections::VecDeque;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and nothing is done. From 500 on by a page of a gateway.
    Status(u16),
    /// It is refused with openEO's `JobNotFound`, and 404.
    NotFound,
    /// It is refused as `ConcurrentJobLimit`.
    TooManyJobs,
    /// It is done, and answered with this status and a page of a gateway.
    DoneBut(u16),
    /// It is answered with 202 as if it were done, and nothing is done.
    Forgotten,
    /// It is done, and the connection is cut before the answer.
    LostReply,
    /// The connection is cut, and nothing is done.
    Cut,
    /// It is answered, and the connection is cut after so many bytes of the body.
    CutAt(usize),
    /// As [`CutAt`](Fault::CutAt), and then all tokens expire.
    CutThenExpire(usize),
    /// It is done when the test lets it go on.
    Hang,
    /// It is sent on to a neighbour: a path of the same host that isn't below the API's root.
    Redirect,
    /// The last byte of the body is another.
    Damaged,
    /// The link has expired: 410, `ResultLinkExpired`.
    Expired,
}

#[derive(Default)]
pub(crate) struct Plans(VecDeque<Plan>);

struct Plan {
    kind: &'static str,
    title: Option<String>,
    fault: Fault,
    times: usize,
}

impl Plans {
    pub(crate) fn add(&mut self, kind: &'static str, title: Option<String>, fault: Fault, times: usize) {
        self.0.push_back(Plan { kind, title, fault, times });
    }

    /// What strikes this call, if anything does.
    pub(crate) fn strike(&mut self, kind: &str, title: Option<&str>) -> Option<Fault> {
        let is_for = |plan: &&mut Plan| {
            plan.kind == kind && plan.times > 0 && plan.title.as_deref().is_none_or(|wanted| title == Some(wanted))
        };
        let plan = self.0.iter_mut().find(is_for)?;
        plan.times -= 1;
        Some(plan.fault)
    }
}

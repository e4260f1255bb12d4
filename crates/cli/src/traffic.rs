//! The traffic that a rollout is planned for: given by flags, or seen by a server.

use serin_core::forecast::{InvalidTraffic, Traffic};
use serin_core::plan::Plan;

use crate::api::{Client, ServerArgs};
use crate::told::Told;

/// Canary sessions from which the requests of a session are taken from a running rollout.
const LEAST_SESSIONS: u64 = 30;

/// The flags that name a traffic.
#[derive(Debug, clap::Args)]
pub(crate) struct TrafficArgs {
    /// New sessions per second
    #[arg(long, value_name = "RATE", conflicts_with = "sessions_per_day")]
    sessions_per_second: Option<f64>,
    /// New sessions per day
    #[arg(long, value_name = "RATE")]
    sessions_per_day: Option<f64>,
    /// Mean requests of a session
    #[arg(long, value_name = "COUNT")]
    requests_per_session: Option<f64>,
    /// The share of a segment in the sessions; the last segment gets the rest. May be repeated
    #[arg(long = "share", value_name = "SEGMENT=PERCENT", value_parser = share)]
    shares: Vec<(String, f64)>,
}

/// Reads `beta_users=10%`.
fn share(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("{text:?} is no share such as beta_users=10%");
    let (segment, share) = text.split_once('=').ok_or_else(wrong)?;
    let share: f64 = share.trim().trim_end_matches('%').trim_end().parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&share) { Ok((segment.to_owned(), share / 100.0)) } else { Err(wrong()) }
}

impl TrafficArgs {
    /// The traffic that was given; nothing without a rate.
    ///
    /// # Errors
    /// [`Told`] when the numbers are no traffic, or name segments that the plan has not.
    pub(crate) fn given(&self, plan: &Plan) -> Result<Option<Traffic>, Told> {
        let traffic = match (self.sessions_per_second, self.sessions_per_day) {
            (Some(rate), _) => Traffic::per_second(rate),
            (None, Some(rate)) => Traffic::per_day(rate),
            (None, None) => return Ok(None),
        };
        self.refined(traffic.map_err(told)?, plan).map(Some)
    }

    /// The traffic that the server sees, with what was given of it, and where it comes from in words.
    ///
    /// # Errors
    /// [`Told`] as [`Self::given`], or when the server does not know the traffic.
    pub(crate) async fn seen(&self, plan: &Plan, server: &ServerArgs) -> Result<(Traffic, String), Told> {
        let (traffic, from) = seen(plan, server).await?;
        Ok((self.refined(traffic, plan)?, from))
    }

    fn refined(&self, traffic: Traffic, plan: &Plan) -> Result<Traffic, Told> {
        let traffic = match self.requests_per_session {
            Some(requests) => traffic.with_requests(requests).map_err(told)?,
            None => traffic,
        };
        match self.segment_shares(plan)? {
            Some(shares) => traffic.with_segment_shares(shares).map_err(told),
            None => Ok(traffic),
        }
    }

    /// The shares of all segments, in their order; the last one gets what is left.
    fn segment_shares(&self, plan: &Plan) -> Result<Option<Vec<f64>>, Told> {
        if self.shares.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = plan.segments.iter().map(|segment| segment.name.to_string()).collect();
        if let Some((unknown, _)) = self.shares.iter().find(|(name, _)| !names.contains(name)) {
            let told = Told::new(format!("the manifest of {} has no segment {unknown:?}", plan.pack));
            return Err(told.hint(format!("its segments are {}", names.join(", "))));
        }
        let given = |name: &String| {
            self.shares.iter().find(|(given, _)| given == name).map_or(0.0, |(_, share)| *share)
        };
        let mut shares: Vec<f64> = names.iter().map(given).collect();
        if let Some(last) = shares.len().checked_sub(1) {
            let others: f64 = shares[..last].iter().sum();
            shares[last] = 1.0 - others;
        }
        Ok(Some(shares))
    }
}

fn told(error: InvalidTraffic) -> Told {
    Told::new(error.to_string())
}

/// The traffic that the server sees.
async fn seen(plan: &Plan, server: &ServerArgs) -> Result<(Traffic, String), Told> {
    const HINT: &str = "name the traffic with --sessions-per-second or --sessions-per-day";
    let client = Client::new(server)?;
    let detail = client.pack(&plan.pack).await.map_err(|told| told.hint(HINT))?;
    let server = server.server.trim_end_matches('/');
    let rate = detail.sessions_per_second.ok_or_else(|| {
        Told::new(format!("{server} has seen too few sessions of {} to know their rate", plan.pack))
            .hint(HINT)
    })?;
    let traffic = Traffic::per_second(rate).map_err(|error| told(error).hint(HINT))?;
    let exposure = detail.rollout.map(|rollout| rollout.exposure);
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let requests = exposure
        .filter(|exposure| exposure.sessions >= LEAST_SESSIONS)
        .map(|exposure| (exposure.requests as f64 / exposure.sessions as f64).clamp(1.0, 10_000.0));
    let traffic = match requests {
        Some(requests) => traffic.with_requests(requests).map_err(told)?,
        None => traffic,
    };
    Ok((traffic, format!("seen by {server}")))
}

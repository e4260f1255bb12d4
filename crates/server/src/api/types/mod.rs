//! What the API says and takes, as the wire has it.
//!
//! Points in time are RFC 3339, weights and shares are percent, lengths of time are text such as
//! `5m`. Everything reads back as well as it writes, so that a client can use the same types.

mod alert;
mod audit;
mod check;
mod data;
mod explain;
mod key;
mod notify;
mod ofrep;
mod overview;
mod pack;
mod policy;
mod problem;
mod rollout;
mod sample;
mod segment;
mod watch;
mod word;

pub use alert::{
    AlertList, AlertRequest, AlertState, AlertStatus, AlertView, AlertmanagerAlert, AlertmanagerWebhook,
    AlertsAnswer, AlertsRequest, IgnoredAlert,
};
pub use audit::{
    AuditEntryView, AuditPage, AuditVerified, OncallCanary, OncallCommand, OncallView, StreamEvent,
};
pub use check::{
    CheckList, CheckOutcome, CheckSummaryView, CheckView, GateState, GateView, IntervalView, MetricStatus,
    MetricTier, MetricUnit, MetricView, ReplayView, SeriesOfMetric, SeriesPoint, SeriesView, Verdict,
};
pub use data::{
    CarriedView, CommandRequest, EventInput, EventValue, EventsAnswer, EventsRequest, RejectedEvent,
    RenderedPrompt, ResolveReason, ResolveRequest, ResolveResponse, Variant,
};
pub use explain::{
    ExplainView, ExplainedResponse, NextChangeBy, NextChangeView, PinView, SegmentAnswer, SegmentTestView,
    ShareView,
};
pub use key::{
    CallerSource, KeyCreated, KeyList, KeyRequest, KeyView, Permission, Role, SessionRequest, SignInProvider,
    SignInView, WhoamiView,
};
pub use notify::{DeadLetterView, DeadLetters, ReceiverList, ReceiverView, RetriedView, TestedView};
pub use ofrep::{
    OfrepBulk, OfrepChange, OfrepEndpoint, OfrepErrorCode, OfrepEventStream, OfrepFailure, OfrepFlag,
    OfrepMetadata, OfrepReason, OfrepRequest, OfrepValue,
};
pub use overview::{ActiveView, ClosestView, DecisionView, OverviewPack, OverviewView, WorstView};
pub use pack::{
    AppliedOutcome, AppliedView, ContentChange, DiffView, DrainingView, PackDetail, PackList, PackSummary,
    SessionsOfVersion, SessionsView, VersionDetail, VersionList, VersionView,
};
pub use policy::{OverriddenView, PolicyView};
pub use problem::{FieldProblem, ProblemDetails, ProblemSeverity};
pub use rollout::{
    EndHow, EndView, ExposedAtView, ExposedPage, ExposedSessionView, ExposureCounts, ExposureView, HoldCause,
    HoldView, MeasuredShare, NextStepView, Phase, ProgressView, RolloutKind, RolloutList, RolloutSummary,
    RolloutView, SidesView, SpanView, StepPlace, StepView, TimelineView,
};
pub use sample::{MessageView, RecordingView, SampleSignal, SampleView, SamplesView};
pub use segment::{SegmentView, WeightChangeBy, WeightChangeView};
pub use watch::{OnBreach, WatchState, WatchView};

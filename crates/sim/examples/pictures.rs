//! Draws the pictures of `docs/statistics.md`: `cargo run -p serin-sim --example pictures`.
//!
//! The same seed gives the same pictures, byte for byte. Colours follow the reader's light or dark setting.

use std::fmt::Write as _;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serin_core::stats::badness::Badness;
use serin_core::stats::canary::{Baseline, CanaryCell, CanaryTest, Direction};
use serin_core::stats::late_harm::Starts;
use serin_core::stats::power::ThresholdGate;
use serin_core::stats::share::Share;

/// The weights of the timetable in percent, five minutes each.
const WEIGHTS: [f64; 7] = [10.0, 20.0, 30.0, 40.0, 50.0, 70.0, 90.0];
const MINUTES_PER_STEP: usize = 5;
const MINUTES: usize = WEIGHTS.len() * MINUTES_PER_STEP;
/// Ten a second.
const SESSIONS_PER_MINUTE: u32 = 600;
/// Stable's failure rate.
const STABLE: f64 = 0.06;
/// Rollouts behind the picture of false rollbacks.
const RUNS: u64 = 1_000;
/// The usual point of a two-sided 95 % test.
const Z95: f64 = 1.96;
/// The top of the picture of evidence.
const HIGHEST: f64 = 12.0;
/// The natural logarithm of 1/0.05.
const LIMIT: f64 = 2.995_732_273_553_991;

/// Sessions and bad ones of each variant, in one minute: stable, then canary.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    sessions: [u64; 2],
    bad: [u64; 2],
}

/// One rollout, minute by minute; `rate` gives the failure rate of stable and canary in a minute.
fn rollout(seed: u64, rate: impl Fn(usize) -> [f64; 2]) -> Vec<Minute> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    (0..MINUTES)
        .map(|minute| {
            let (weight, rates) = (WEIGHTS[minute / MINUTES_PER_STEP] / 100.0, rate(minute));
            let mut seen = Minute::default();
            for _ in 0..SESSIONS_PER_MINUTE {
                let variant = usize::from(random.random_bool(weight));
                seen.sessions[variant] += 1;
                seen.bad[variant] += u64::from(random.random_bool(rates[variant]));
            }
            seen
        })
        .collect()
}

/// The logarithm of Serin's evidence after each minute, with the late-harm mixture.
fn evidence(minutes: &[Minute]) -> Vec<f64> {
    let baseline = Baseline::new(STABLE, (STABLE * (1.0 - STABLE)).sqrt()).expect("a rate has a spread");
    let test = CanaryTest::new(baseline, 0.0, Direction::Rollback).expect("a margin of 0 is one");
    let steps = u16::try_from(WEIGHTS.len()).expect("seven steps");
    let starts = Starts::new((0..steps).collect()).expect("steps count upwards");
    let mut steps: Vec<Minute> = Vec::new();
    let mut logs = Vec::with_capacity(minutes.len());
    for (index, minute) in minutes.iter().enumerate() {
        if index % MINUTES_PER_STEP == 0 {
            steps.push(Minute::default());
        }
        let step = steps.last_mut().expect("the first minute opens a step");
        for variant in 0..2 {
            step.sessions[variant] += minute.sessions[variant];
            step.bad[variant] += minute.bad[variant];
        }
        let counts: Vec<[[(Badness, u64); 2]; 2]> =
            steps.iter().map(|step| [0, 1].map(|v| histogram(step, v))).collect();
        let cells = counts.iter().zip(0_u16..).map(|(counts, step)| CanaryCell {
            step,
            weight: Share::new(WEIGHTS[usize::from(step)] / 100.0).expect("a weight is a share"),
            canary: &counts[1],
            stable: &counts[0],
        });
        logs.push(starts.log_e(&test.process(cells)).ln());
    }
    logs
}

fn histogram(seen: &Minute, variant: usize) -> [(Badness, u64); 2] {
    [(Badness::WORST, seen.bad[variant]), (Badness::BEST, seen.sessions[variant] - seen.bad[variant])]
}

/// The z value of the usual two-sample test over all sessions, after each minute.
fn z_values(minutes: &[Minute]) -> Vec<f64> {
    let mut sum = Minute::default();
    minutes
        .iter()
        .map(|minute| {
            for variant in 0..2 {
                sum.sessions[variant] += minute.sessions[variant];
                sum.bad[variant] += minute.bad[variant];
            }
            let n = sum.sessions.map(|n| n as f64);
            let share = [sum.bad[0] as f64 / n[0], sum.bad[1] as f64 / n[1]];
            let pooled = (sum.bad[0] + sum.bad[1]) as f64 / (n[0] + n[1]);
            (share[1] - share[0]) / (pooled * (1.0 - pooled) * (1.0 / n[0] + 1.0 / n[1])).sqrt()
        })
        .collect()
}

/// In percent of the runs: how many have reached `limit` by each minute.
fn rolled_back(looks: &[Vec<f64>], limit: f64) -> Vec<f64> {
    let reached: Vec<usize> =
        looks.iter().map(|run| run.iter().position(|look| *look >= limit).unwrap_or(MINUTES)).collect();
    (0..MINUTES)
        .map(|minute| 100.0 * reached.iter().filter(|at| **at <= minute).count() as f64 / looks.len() as f64)
        .collect()
}

/// A chart of lines.
struct Chart {
    title: &'static str,
    x_label: &'static str,
    y_label: &'static str,
    x: Axis,
    y: Axis,
    lines: Vec<Line>,
}

struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<f64>,
}

struct Line {
    label: String,
    /// One of the classes of the style sheet.
    class: &'static str,
    points: Vec<(f64, f64)>,
    /// Where the label stands, in the units of the axes.
    label_at: (f64, f64),
}

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:15px}\
.axis,.grid{stroke:#333;stroke-width:1;fill:none}.grid{opacity:.15}\
.a,.b,.c,.d{fill:none;stroke-width:2.2;stroke-linejoin:round}.a{stroke:#c0392b}.b{stroke:#b9770e}.c{stroke:#1e8449}.d{stroke:#2471a3}\
.limit{fill:none;stroke:#333;stroke-width:1.5;stroke-dasharray:6 4}\
text.a{fill:#c0392b;stroke:none}text.b{fill:#b9770e;stroke:none}text.c{fill:#1e8449;stroke:none}text.d{fill:#2471a3;stroke:none}text.limit{fill:#333;stroke:none}\
@media(prefers-color-scheme:dark){text,text.limit{fill:#ddd}.axis,.grid,.limit{stroke:#ddd}\
.a{stroke:#ff8a7a}.b{stroke:#f5c16c}.c{stroke:#7ddf9f}.d{stroke:#7fc1f5}\
text.a{fill:#ff8a7a}text.b{fill:#f5c16c}text.c{fill:#7ddf9f}text.d{fill:#7fc1f5}}";

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_log { value.ln() } else { value };
        (scale(value.clamp(self.from, self.to)) - scale(self.from)) / (scale(self.to) - scale(self.from))
    }
}

impl Chart {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM);
        (across, down)
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
            self.title
        );
        let text = |x: f64, y: f64, anchor: &str, class: &str, words: &str| {
            let words = words.replace('&', "&amp;").replace('<', "&lt;");
            format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>\n"
            )
        };
        let mut body = text(LEFT, 24.0, "start", "title", self.title);
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in &self.y.ticks {
            let (_, y) = self.at((self.x.from, *tick));
            let _ = writeln!(body, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            body.push_str(&text(LEFT - 8.0, y + 4.0, "end", "", &tick.to_string()));
        }
        for tick in &self.x.ticks {
            let (x, _) = self.at((*tick, self.y.from));
            body.push_str(&text(x, bottom + 18.0, "middle", "", &tick.to_string()));
        }
        let _ = writeln!(body, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
        body.push_str(&text((LEFT + right) / 2.0, HEIGHT - 12.0, "middle", "", self.x_label));
        body.push_str(&text(LEFT, TOP - 6.0, "start", "", self.y_label));
        for line in &self.lines {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|point| {
                    let (x, y) = self.at(*point);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            let _ = writeln!(body, "<polyline class=\"{}\" points=\"{}\"/>", line.class, points.join(" "));
            let (x, y) = self.at(line.label_at);
            body.push_str(&text(x, y, "start", line.class, &line.label));
        }
        svg.push_str(&body);
        svg.push_str("</svg>\n");
        svg
    }
}

fn axis(from: f64, to: f64, ticks: &[f64]) -> Axis {
    Axis { from, to, is_log: false, ticks: ticks.to_vec() }
}

fn over_minutes(values: &[f64]) -> Vec<(f64, f64)> {
    (1..).map(f64::from).zip(values.iter().copied()).collect()
}

/// The points up to the first one that leaves the chart.
fn until_above(points: Vec<(f64, f64)>, highest: f64) -> Vec<(f64, f64)> {
    let kept = points.iter().position(|(_, y)| *y > highest).map_or(points.len(), |first| first + 1);
    points.into_iter().take(kept).collect()
}

/// Three rollouts: how the evidence grows, and where it acts.
fn evidence_over_time() -> Chart {
    let line = |label: &str, class, canary: f64, label_at| Line {
        label: label.to_owned(),
        class,
        points: until_above(over_minutes(&evidence(&rollout(7, |_| [STABLE, canary]))), HIGHEST),
        label_at,
    };
    let minutes = f64::from(u16::try_from(MINUTES).expect("35"));
    Chart {
        title: "Evidence against three canaries, stable succeeds in 94 %",
        x_label: "minutes since evidence began, 10 sessions/s, 10 to 90 % canary",
        y_label: "ln E",
        x: axis(0.0, minutes, &[0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0]),
        y: axis(-3.0, HIGHEST, &[-3.0, 0.0, 3.0, 6.0, 9.0, 12.0]),
        lines: vec![
            Line {
                label: "rolls back from here on (E = 20)".to_owned(),
                class: "limit",
                points: vec![(0.0, LIMIT), (minutes, LIMIT)],
                label_at: (22.0, LIMIT + 0.35),
            },
            line("canary 80 %", "a", 0.20, (3.0, 10.5)),
            line("canary 90 %", "b", 0.10, (12.5, 9.6)),
            line("canary 94 %, healthy", "c", STABLE, (22.0, -2.3)),
        ],
    }
}

/// Healthy canaries that are rolled back, by the usual test and by Serin.
fn false_rollbacks() -> Chart {
    let drift = |minute: usize| {
        let rate = 0.04 + 0.06 * minute as f64 / MINUTES as f64;
        [rate, rate]
    };
    let steady: Vec<Vec<Minute>> = (0..RUNS).map(|run| rollout(1_000 + run, |_| [STABLE, STABLE])).collect();
    let drifting: Vec<Vec<Minute>> = (0..RUNS).map(|run| rollout(5_000 + run, drift)).collect();
    let of = |runs: &[Vec<Minute>], look: fn(&[Minute]) -> Vec<f64>, limit| {
        let looks: Vec<Vec<f64>> = runs.iter().map(|run| look(run)).collect();
        rolled_back(&looks, limit)
    };
    let line = |name: &str, class, percent: Vec<f64>, label_at| {
        let last = percent.last().copied().unwrap_or(0.0);
        Line { label: format!("{name}: {last:.1} %"), class, points: over_minutes(&percent), label_at }
    };
    Chart {
        title: "Healthy canaries that are rolled back, with a look every minute",
        x_label: "minutes since evidence began, 10 sessions/s, 10 to 90 % canary",
        y_label: "% of 1000 rollouts",
        x: axis(0.0, 35.0, &[0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0]),
        y: axis(0.0, 100.0, &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0]),
        lines: vec![
            Line {
                label: "the promise: 5 %".to_owned(),
                class: "limit",
                points: vec![(0.0, 5.0), (35.0, 5.0)],
                label_at: (28.0, 6.4),
            },
            line(
                "z test, both variants drift from 4 to 10 % failures",
                "a",
                of(&drifting, z_values, Z95),
                (7.5, 90.0),
            ),
            line("z test", "b", of(&steady, z_values, Z95), (26.0, 27.0)),
            line("Serin, both drift", "d", of(&drifting, evidence, LIMIT), (7.0, 1.9)),
            line("Serin", "c", of(&steady, evidence, LIMIT), (20.0, 1.9)),
        ],
    }
}

/// The smallest harm that two gates see, by canary sessions.
fn detectable_harm() -> Chart {
    let counts: Vec<u64> =
        (0..=60).map(|n| (20.0 * 250_f64.powf(f64::from(n) / 60.0)).round() as u64).collect();
    let line = |label: &str, class, allowed: f64, label_at| {
        let gate = ThresholdGate::new(allowed, 0.05, 0.5).expect("one of two gates");
        let seen = counts.iter().filter_map(|n| Some((*n as f64, 100.0 * gate.smallest_harm(*n)?)));
        Line { label: label.to_owned(), class, points: seen.collect(), label_at }
    };
    let flat = |percent| vec![(20.0, percent), (5_000.0, percent)];
    Chart {
        title: "The smallest harm that is seen in 4 of 5 rollouts",
        x_label: "canary sessions",
        y_label: "% bad",
        x: Axis {
            from: 20.0,
            to: 5_000.0,
            is_log: true,
            ticks: vec![20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0],
        },
        y: axis(0.0, 50.0, &[0.0, 10.0, 20.0, 30.0, 40.0, 50.0]),
        lines: vec![
            line("success_rate >= 90%", "a", 0.10, (60.0, 31.0)),
            line("latency_p99 <= limit", "d", 0.01, (24.0, 5.0)),
            Line {
                label: "10 % are accepted".to_owned(),
                class: "limit",
                points: flat(10.0),
                label_at: (1_500.0, 8.0),
            },
        ],
    }
}

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures");
    std::fs::create_dir_all(&folder)?;
    for (name, chart) in [
        ("evidence.svg", evidence_over_time()),
        ("false-rollbacks.svg", false_rollbacks()),
        ("detectable-harm.svg", detectable_harm()),
    ] {
        std::fs::write(folder.join(name), chart.svg())?;
        println!("docs/pictures/{name}");
    }
    Ok(())
}

//! Probe.
use serin_sim::{Scenario, simulate};
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let m = std::fs::read_to_string(&a[1]).unwrap();
    let s = Scenario::built_in(&a[2])
        .or_else(|| Scenario::parse(&std::fs::read_to_string(&a[2]).ok()?).ok())
        .unwrap();
    let mut s = s;
    if let Some(r) = a.get(4) {
        s.traffic.sessions_per_s = r.parse().unwrap();
    }
    let runs: u32 = a[3].parse().unwrap();
    let t = Instant::now();
    let r = simulate(&m, &s, runs, 1).unwrap();
    println!("{:?}\n{:#?}", t.elapsed(), r);
}

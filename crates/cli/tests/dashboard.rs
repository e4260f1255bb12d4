//! The dashboard: what is committed is what its sources give, and does in a browser what it should.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The dashboard's folder.
const UI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui");

#[test]
fn the_committed_dashboard_is_the_one_that_its_sources_give() {
    let built = tempfile::tempdir().expect("a temporary folder can be made");
    let output = Command::new("npm")
        .args(["run", "--silent", "build", "--", "--logLevel", "warn", "--outDir"])
        .arg(built.path())
        .current_dir(UI)
        .output()
        .expect("`scripts/setup.sh test` has installed what builds the dashboard");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (fresh, committed) = (files(built.path()), files(&Path::new(UI).join("dist")));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&fresh), names(&committed), "run `make ui` and commit ui/dist");
    for (name, content) in &fresh {
        assert!(committed[name] == *content, "{name} differs: run `make ui` and commit ui/dist");
    }
}

/// Types of the API come from its description, so a page that reads what is not there any more fails here.
#[test]
fn the_sources_fit_the_description_of_the_api() {
    let output = Command::new("npm")
        .args(["run", "--silent", "check"])
        .current_dir(UI)
        .output()
        .expect("`scripts/setup.sh test` has installed what checks the dashboard");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The tests are in `ui/tests/dashboard.mjs`: they start the program, drive Chromium, and print each result.
#[test]
fn the_dashboard_works_in_a_browser() {
    let output = Command::new("node")
        .arg(Path::new(UI).join("tests/dashboard.mjs"))
        .env("SERIN_BIN", env!("CARGO_BIN_EXE_serin"))
        .output()
        .expect("`scripts/setup.sh test` has installed what the tests need");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("ok a rollout is watched"), "the tests have run: {out}");
}

/// Files by their path below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it is below").display().to_string();
                found.insert(name, std::fs::read(&path).expect("the file can be read"));
            }
        }
    }
    found
}

//! The shape of the project, held by tests instead of wishes.
//!
//! A rule is a function from the files of the project to what breaks it. Each test shows two things: the
//! project keeps the rule, and a small example that breaks it is caught.

#[path = "tidy/licence.rs"]
mod licence;
#[path = "tidy/reading.rs"]
mod reading;

use serde_json::Value;

use licence::{Policy, permits};
use reading::{
    Kind, TIDY, Tree, cargo, code_spans, dependencies, has_word_starting, lines_where, section, words,
};

// ---- Layers -------------------------------------------------------------------------------------------

/// Pure libraries: text or numbers in, values out.
const CORE_MAY_USE: &[&str] = &[
    "annotate-snippets",
    "blake3",
    "cel",
    "jiff",
    "regex",
    "semver",
    "serde",
    "serde-saphyr",
    "serde_json",
    "statrs",
    "strsim",
    "thiserror",
    "xxhash-rust",
];

const CORE_TESTS_MAY_USE: &[&str] = &["insta", "proptest"];

#[test]
fn core_depends_on_pure_libraries_only() {
    fn rule(tree: &Tree) -> Vec<String> {
        let manifest = tree.text("crates/core/Cargo.toml");
        let mut broken = Vec::new();
        for (kind, name) in dependencies(manifest) {
            let allowed = match kind {
                Kind::Normal => CORE_MAY_USE.contains(&name.as_str()),
                Kind::Dev => [CORE_MAY_USE, CORE_TESTS_MAY_USE].concat().contains(&name.as_str()),
                Kind::Build => false,
            };
            if !allowed {
                broken.push(format!("crates/core/Cargo.toml: `{name}` is not on the list of pure libraries"));
            }
        }
        broken
    }
    holds(rule);
    catches(
        rule,
        "crates/core/Cargo.toml",
        "[dependencies]\nserde.workspace = true\ntokio.workspace = true\n",
    );
    catches(rule, "crates/core/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n");
    catches(rule, "crates/core/Cargo.toml", "[dependencies.rand]\nversion = \"0.10\"\n");
    catches(rule, "crates/core/Cargo.toml", "[build-dependencies]\nserde.workspace = true\n");
    accepts(rule, "crates/core/Cargo.toml", "[dev-dependencies]\nproptest.workspace = true\n");
}

/// What a library of core must not bring along: a runtime, randomness, sockets, logging.
const IMPURE: &[&str] = &[
    "async-std",
    "getrandom",
    "hyper",
    "log",
    "mio",
    "rand",
    "reqwest",
    "socket2",
    "sqlx",
    "tokio",
    "tracing",
];

#[test]
fn core_brings_no_runtime_and_no_randomness_along() {
    fn rule(listing: &str) -> Vec<&str> {
        let names = listing.lines().filter_map(|line| line.split_whitespace().next());
        names.filter(|name| IMPURE.contains(name)).collect()
    }
    let tree = "tree --offline --locked --package serin-core --edges normal --prefix none";
    let listing = cargo(&tree.split(' ').collect::<Vec<_>>());
    assert!(listing.starts_with("serin-core "), "could not read `cargo tree`: {listing}");
    assert_eq!(rule(&listing), Vec::<&str>::new(), "see who brings it: cargo tree -p serin-core -i NAME");
    assert_eq!(rule("serin-core v0.1.0\ntokio v1.54.0\n"), ["tokio"]);
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    /// Crate, what it may build on, and what its tests may use besides.
    const LAYERS: &[(&str, &[&str], &[&str])] = &[
        ("core", &[], &[]),
        ("sim", &["serin-core"], &[]),
        ("provider", &[], &[]),
        ("server", &["serin-core"], &["serin-provider", "serin-sim"]),
        ("cli", &["serin-core", "serin-provider", "serin-server", "serin-sim"], &[]),
    ];
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("crates/", &["Cargo.toml"]) {
            let layer = LAYERS.iter().find(|(name, ..)| path == format!("crates/{name}/Cargo.toml"));
            let Some((_, code, tests)) = layer else {
                broken.push(format!("{path}: a crate without a place in the layers"));
                continue;
            };
            for (kind, name) in dependencies(text) {
                let ours = name.starts_with("serin-");
                let known = code.contains(&name.as_str());
                if ours && !known && !(kind == Kind::Dev && tests.contains(&name.as_str())) {
                    broken.push(format!("{path}: must not depend on `{name}`"));
                }
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "crates/core/Cargo.toml", "[dev-dependencies]\nserin-sim.workspace = true\n");
    catches(rule, "crates/server/Cargo.toml", "[dependencies]\nserin-provider.workspace = true\n");
    catches(rule, "crates/extra/Cargo.toml", "[dependencies]\n");
    accepts(rule, "crates/server/Cargo.toml", "[dev-dependencies]\nserin-provider.workspace = true\n");
}

#[test]
fn sqlx_appears_in_the_store_only() {
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("crates/", &[".rs"]) {
            // A test may look into the database, or spoil it, from outside.
            let is_test = path.starts_with("crates/server/tests/") || path == TIDY;
            if !path.starts_with("crates/server/src/store/") && !is_test {
                broken.extend(lines_where(path, text, |code| {
                    let in_use = code.trim_start().trim_start_matches("pub ").starts_with("use sqlx");
                    in_use || code.contains("sqlx::") || has_word_starting(code, "sqlx_")
                }));
            }
        }
        for (path, text) in tree.matching("crates/", &["Cargo.toml"]) {
            if path != "crates/server/Cargo.toml" && dependencies(text).iter().any(|(_, name)| name == "sqlx")
            {
                broken.push(format!("{path}: depends on sqlx"));
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "crates/server/src/controller.rs", "use sqlx::Row;");
    catches(rule, "crates/cli/Cargo.toml", "[dependencies]\nsqlx.workspace = true\n");
    accepts(rule, "crates/server/src/store/rows.rs", "use sqlx::Row;");
    accepts(rule, "crates/server/src/controller.rs", "// the store uses sqlx::query");
    accepts(rule, "crates/server/src/telemetry.rs", "let filter = \"info,sqlx=warn\";");
}

#[test]
fn the_http_server_appears_in_its_own_modules_only() {
    fn rule(tree: &Tree) -> Vec<String> {
        const SRC: &str = "crates/server/src/";
        let mut broken = Vec::new();
        for (path, text) in tree.matching(SRC, &[".rs"]) {
            let module = &path[SRC.len()..];
            if module != "lib.rs"
                && !["api/", "gateway/", "dashboard/"].iter().any(|own| module.starts_with(own))
            {
                broken.extend(lines_where(path, text, |code| {
                    has_word_starting(code, "axum")
                        || has_word_starting(code, "utoipa_axum")
                        || code.contains("hyper::server")
                        || code.contains("hyper_util::server")
                }));
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "crates/server/src/auth.rs", "use axum::extract::State;");
    catches(rule, "crates/server/src/store/mod.rs", "use hyper::server::conn::http1;");
    accepts(rule, "crates/server/src/lib.rs", "use axum::Router;");
    accepts(rule, "crates/server/src/gateway/mod.rs", "use axum::Router;");
    accepts(rule, "crates/server/src/notify/webhook.rs", "use hyper::client::conn::http1;");
}

#[test]
fn the_gateway_never_names_the_store() {
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("crates/server/src/gateway", &[".rs"]) {
            broken.extend(lines_where(path, text, |code| {
                let in_use = code.trim_start().trim_start_matches("pub ").starts_with("use ");
                words(code).any(|(start, word)| {
                    // `counter.store(1)` and a request's field `store` are other things; a path is not.
                    let module = word == "store"
                        && (in_use
                            || code[start + word.len()..].starts_with("::")
                            || (code[..start].ends_with("::")
                                && !code[start + word.len()..].starts_with('(')));
                    module || word.ends_with("Store")
                })
            }));
        }
        broken
    }
    holds(rule);
    let file = "crates/server/src/gateway/proxy.rs";
    for code in [
        "use crate::store::Pins;",
        "use crate::{snapshot, store};",
        "fn f(store: &Store) {}",
        "let p = super::store::open();",
        "pub struct G { s: Arc<PinStore> }",
    ] {
        catches(rule, file, code);
    }
    catches(rule, "crates/server/src/gateway.rs", "use crate::store;");
    accepts(rule, file, "counter.store(1, Relaxed); // what the store would do");
    accepts(rule, file, "struct Body { store: Option<bool> }");
}

#[test]
fn the_store_reads_no_clock_and_makes_no_ids() {
    const BANNED_CALLS: &[&str] = &["now", "random", "randomblob", "gen_random_uuid", "uuid", "nextval"];
    const BANNED_WORDS: &[&str] =
        &["current_timestamp", "current_time", "current_date", "autoincrement", "bigserial"];
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("crates/", &[".rs", ".sql"]) {
            if path.starts_with("crates/server/src/store") || path.ends_with(".sql") {
                broken.extend(lines_where(path, text, |code| {
                    let code = code.to_lowercase();
                    let code = code.split("--").next().unwrap_or_default();
                    words(code).any(|(start, word)| {
                        let called = code[start + word.len()..].trim_start().starts_with('(');
                        BANNED_WORDS.contains(&word) || (called && BANNED_CALLS.contains(&word))
                    }) || code.contains("'now'")
                }));
            }
        }
        broken
    }
    holds(rule);
    let file = "crates/server/src/store/events.rs";
    for code in [
        r#"query("UPDATE pins SET seen = now()")"#,
        r#"query("SELECT datetime('now')")"#,
        "let at = Timestamp::now();",
        "id INTEGER PRIMARY KEY AUTOINCREMENT",
        "at BIGINT DEFAULT CURRENT_TIMESTAMP",
        "ORDER BY RANDOM ()",
    ] {
        catches(rule, file, code);
        catches(rule, "crates/server/migrations/0001.sql", code);
    }
    accepts(rule, file, "fn due(now: Timestamp) { known(now); set_now(now) }");
    accepts(rule, "crates/server/migrations/0001.sql", "at BIGINT NOT NULL -- never now()");
}

// ---- Files --------------------------------------------------------------------------------------------

/// Where the aim of about 600 lines becomes a rule.
const LINES_MAX: usize = 700;

#[test]
fn a_file_tells_one_story() {
    fn rule(tree: &Tree) -> Vec<String> {
        let kinds = [".css", ".js", ".mjs", ".py", ".rs", ".sh", ".sql", ".svelte", ".ts"];
        let mut broken = Vec::new();
        for (path, text) in tree.matching("", &kinds) {
            let lines = text.lines().count();
            if lines >= LINES_MAX && !path.starts_with("ui/dist/") {
                broken.push(format!("{path}: {lines} lines; split it by subject below {LINES_MAX}"));
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "crates/core/src/long.rs", &"\n".repeat(LINES_MAX));
    catches(rule, "ui/src/App.svelte", &"\n".repeat(LINES_MAX));
    accepts(rule, "crates/core/src/long.rs", &"\n".repeat(LINES_MAX - 1));
}

#[test]
fn nothing_is_left_unfinished_skipped_or_slept_through() {
    // In two pieces each, so that this file keeps its own rule.
    const BANNED: &[&str] = &[
        concat!("todo", "!"),
        concat!("unimple", "mented!"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
        concat!("thread", "::sleep"),
    ];
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("crates/", &[".rs", ".sql", ".py", ".js", ".mjs"]) {
            // A benchmark lets processes of its own come to rest between two measurements.
            let is_measuring = path.contains("/benches/");
            for (number, line) in (1..).zip(text.lines()) {
                let is_banned =
                    |word: &&&str| line.contains(**word) && !(is_measuring && word.ends_with("sleep"));
                if let Some(word) = BANNED.iter().find(is_banned) {
                    broken.push(format!("{path}:{number}: {word}"));
                }
            }
        }
        broken
    }
    holds(rule);
    for word in BANNED {
        catches(rule, "crates/core/src/plan.rs", &format!("fn f() {{\n    {word}\n}}"));
    }
}

#[test]
fn every_crate_forbids_unsafe_code() {
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("crates/", &["Cargo.toml"]) {
            let lints = section(text, "[lints]");
            if !lints.iter().any(|line| line.replace(' ', "") == "workspace=true") {
                broken.push(format!("{path}: needs `[lints] workspace = true`"));
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "crates/extra/Cargo.toml", "[package]\nname = \"extra\"\n[lints.rust]\nworkspace = true\n");

    fn root(tree: &Tree) -> Vec<String> {
        let lints = section(tree.text("Cargo.toml"), "[workspace.lints.rust]");
        let forbids = lints.iter().any(|line| line.replace(' ', "") == "unsafe_code=\"forbid\"");
        if forbids { vec![] } else { vec!["Cargo.toml: unsafe_code is not forbidden".to_owned()] }
    }
    holds(root);
    catches(root, "Cargo.toml", "[workspace.lints.rust]\nunsafe_code = \"deny\"\n");
}

#[test]
fn every_example_is_used_by_a_test_or_a_page() {
    fn rule(tree: &Tree) -> Vec<String> {
        let users: Vec<&str> = tree
            .matching("", &[".rs", ".md", ".yaml", "Makefile"])
            .filter(|(path, _)| *path != TIDY)
            .map(|(_, text)| text)
            .collect();
        let mut broken = Vec::new();
        for path in tree.files.keys().filter(|path| path.starts_with("examples/")) {
            let (directory, name) = path.rsplit_once('/').expect("the path starts with examples/");
            // Named itself, or read together with its whole directory: "…/examples/packs" or "…/examples/packs/".
            let whole = [format!("{directory}\""), format!("{directory}/\"")];
            if !users.iter().any(|text| text.contains(name) || whole.iter().any(|end| text.contains(end))) {
                broken.push(format!("{path}: no test and no page uses it"));
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "examples/packs/lost.pack.json", "{}");
    for user in ["include_str!(\"../examples/packs/a.json\")", "read_dir(\"../examples/packs\")"] {
        let tree = Tree::of(&[("examples/packs/a.json", "{}"), ("crates/cli/tests/examples.rs", user)]);
        assert_eq!(rule(&tree), Vec::<String>::new());
    }
}

#[test]
fn the_pages_name_paths_that_exist() {
    fn rule(tree: &Tree) -> Vec<String> {
        const ROOTS: &[&str] = &[".ci/", "crates/", "docs/", "examples/", "scripts/", "ui/"];
        let mut broken = Vec::new();
        for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
            for span in code_spans(tree.text(page)) {
                let path = span.split([' ', ':', '#']).next().unwrap_or_default();
                // A pattern (`docs/decisions/NNNN-*.md`) promises its directory.
                let pattern = ["*", "{", "<", "NNNN"].iter().filter_map(|sign| path.find(sign)).min();
                let path =
                    pattern.map_or(path, |at| path[..at].rsplit_once('/').map_or("", |(start, _)| start));
                if ROOTS.iter().any(|root| path.starts_with(root)) && !tree.has(path) {
                    broken.push(format!("{page}: `{span}` does not exist"));
                }
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "ARCHITECTURE.md", "The plan is in `crates/core/src/gone.rs`.");
    catches(rule, "README.md", "Pages: `docs/decisions/NNNN-*.md`");
    accepts(rule, "README.md", "```sh\n`crates/nowhere`\n```\nand `serin apply -f x`");
    let tree =
        Tree::of(&[("README.md", "see `crates/core/` and `crates/core/a.rs:7`"), ("crates/core/a.rs", "")]);
    assert_eq!(rule(&tree), Vec::<String>::new());
}

#[test]
fn decisions_are_numbered_without_gaps() {
    fn rule(tree: &Tree) -> Vec<String> {
        const PAGES: &str = "docs/decisions/";
        let mut broken = Vec::new();
        let pages = tree.files.keys().filter_map(|path| path.strip_prefix(PAGES));
        for (expected, page) in (1..).zip(pages.filter(|page| *page != "README.md")) {
            if !(page.starts_with(&format!("{expected:04}-")) && page.ends_with(".md")) {
                broken.push(format!("{PAGES}{page}: expected a page {expected:04}-*.md here"));
            }
        }
        broken
    }
    holds(rule);
    catches(rule, "docs/decisions/pins.md", "# Pins");
    catches(rule, "docs/decisions/0002-pins.md", "# Pins");
    let twice = [("docs/decisions/0001-a.md", ""), ("docs/decisions/0001-b.md", "")];
    assert_eq!(rule(&Tree::of(&twice)).len(), 1);
    accepts(rule, "docs/decisions/0001-pins.md", "# Pins");
}

// ---- What comes from outside --------------------------------------------------------------------------

#[test]
fn no_file_says_where_packages_are_downloaded() {
    // In two pieces each, so that this file keeps its own rule.
    const HOSTS: &[&str] = &[
        concat!("static.", "crates.io"),
        concat!("index.", "crates.io"),
        concat!("crates.io", "/api"),
        concat!("registry.", "npmjs.org"),
        concat!("registry.", "yarnpkg.com"),
        concat!("files.", "pythonhosted.org"),
        concat!("pypi.org", "/simple"),
        concat!("deb.", "debian.org"),
    ];
    fn rule(tree: &Tree) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, text) in tree.matching("", &[""]) {
            for host in HOSTS {
                if !path.ends_with("Cargo.lock") && text.contains(host) {
                    broken.push(format!("{path}: names {host}"));
                }
            }
            if path.ends_with("package-lock.json") && text.contains("\"resolved\"") {
                broken
                    .push(format!("{path}: has `resolved` fields; keep omit-lockfile-registry-resolved on"));
            }
        }
        broken
    }
    holds(rule);
    for host in HOSTS {
        catches(rule, "docs/install.md", &format!("curl https://{host}/x"));
    }
    catches(rule, "ui/package-lock.json", "{\"packages\": {\"a\": {\"resolved\": \"x\"}}}");
    accepts(rule, "ui/package-lock.json", "{\"packages\": {\"a\": {\"integrity\": \"x\"}}}");
}

#[test]
fn dependencies_have_known_licences_and_none_is_banned() {
    // cargo-deny reads the same file, where it is installed.
    let policy = Policy::read(include_str!("../../../deny.toml"));
    let rule = |metadata: &Value| -> Vec<String> {
        let mut broken = Vec::new();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let name = package["name"].as_str().unwrap_or_default();
            match package["license"].as_str() {
                Some(licence) if permits(licence, &policy.licences) => {}
                Some(licence) => broken.push(format!("{name}: licence {licence} is not on the list")),
                None => broken.push(format!("{name}: declares no licence")),
            }
            if let Some((_, reason)) = policy.banned.iter().find(|(banned, _)| *banned == name) {
                broken.push(format!("{name} is banned: {reason}"));
            }
        }
        broken
    };
    // Only what is built on this platform: nothing else needs to have been downloaded.
    let about = cargo(&["-vV"]);
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo -vV names the host");
    let metadata =
        cargo(&["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    assert!(packages.len() > 5, "cargo metadata lists more than this workspace");
    assert_eq!(rule(&metadata), Vec::<String>::new());

    for (name, licence) in [("openssl-sys", "MIT"), ("a", "GPL-3.0-only"), ("b", "MIT AND AGPL-3.0-only")] {
        let metadata = serde_json::json!({"packages": [{"name": name, "license": licence}]});
        assert_eq!(rule(&metadata).len(), 1, "{name} under {licence} was not caught");
    }
    assert_eq!(rule(&serde_json::json!({"packages": [{"name": "c", "license": null}]})).len(), 1);
}

// ---- How rules are checked ----------------------------------------------------------------------------

type Rule = fn(&Tree) -> Vec<String>;

/// Asserts that the project keeps a rule.
fn holds(rule: Rule) {
    let broken = rule(&Tree::of_project());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Asserts that a rule finds fault with one file.
fn catches(rule: Rule, path: &str, text: &str) {
    assert!(!rule(&Tree::of(&[(path, text)])).is_empty(), "not caught in {path}: {text}");
}

/// Asserts that a rule finds no fault with one file.
fn accepts(rule: Rule, path: &str, text: &str) {
    assert_eq!(rule(&Tree::of(&[(path, text)])), Vec::<String>::new(), "in {path}: {text}");
}

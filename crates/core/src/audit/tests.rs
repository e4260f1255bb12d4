//! Any change of what is kept or exported is found and named.

use proptest::prelude::*;

use super::*;

/// A log in which every kind of field occurs: with and without rollout, key and evidence.
fn log(n: u64) -> Vec<AuditEntry> {
    let (mut seq, mut prev) = (0, ChainHash::GENESIS);
    (0..n)
        .map(|i| {
            let origin = Origin { source: Source::Key, key: Some("k1".to_owned()) };
            let fact = AuditFact {
                at: Timestamp::from_microsecond(1_800_000_000_000_000 + i64::try_from(i).unwrap()).unwrap(),
                rollout: (i % 2 == 1).then(|| RolloutId::parse("support-r1").unwrap()),
                revision: i,
                actor: if i % 3 == 0 { Actor::serin() } else { Actor::named("ci (for ana)").by(origin) },
                action: Action::StepEntered,
                reason: if i == 0 { String::new() } else { format!("step {i}: \"größer\"\n") },
                evidence: serde_json::json!({"weight": 10 * i, "why": [null, 1.5, "x\ny"]}),
            };
            let entry = AuditEntry::link(seq, prev, "support", &fact);
            (seq, prev) = (entry.seq, entry.hash);
            entry
        })
        .collect()
}

fn last(entries: &[AuditEntry]) -> Noted {
    entries.last().map_or(Noted::GENESIS, |entry| Noted { seq: entry.seq, hash: entry.hash })
}

fn verify(entries: &[AuditEntry], written: Noted, noted: Option<Noted>) -> Result<(), BrokenChain> {
    let mut chain = Chain::new(Noted::GENESIS, noted)?;
    entries.iter().try_for_each(|entry| chain.follow(entry))?;
    chain.end(written)
}

fn export(entries: &[AuditEntry]) -> Vec<String> {
    let head = export_head(Noted::GENESIS);
    let lines = entries.iter().map(|entry| export_line(entry).unwrap());
    std::iter::once(head).chain(lines).chain([export_end(last(entries))]).collect()
}

fn check(file: &[u8]) -> Result<Exported, ExportProblem> {
    let mut verifier = Verifier::new(None);
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        verifier.line(line)?;
    }
    verifier.finish()
}

#[test]
fn a_change_of_any_field_breaks_the_chain_and_is_named() {
    let end = last(&log(5));
    assert_eq!(verify(&log(5), end, None), Ok(()));
    type Tamper = fn(&mut AuditEntry);
    let tampers: [Tamper; 11] = [
        |e| e.at_us += 1,
        |e| e.pack.push('x'),
        |e| e.rollout = Some("r".to_owned()),
        |e| e.rollout = Some(String::new()),
        |e| e.revision += 1,
        |e| e.actor.push('x'),
        |e| e.source = None,
        |e| e.key = None,
        |e| e.action.push('x'),
        |e| e.reason.push('x'),
        |e| e.evidence.push(' '),
    ];
    for (index, tamper) in tampers.into_iter().enumerate() {
        let mut entries = log(5);
        tamper(&mut entries[2]);
        assert_eq!(verify(&entries, end, None), Err(BrokenChain::Changed(3)), "{index}");
    }
    let mut entries = log(5);
    entries[2].reason.push('x');
    entries[2].hash = entries[2].computed_hash();
    assert_eq!(verify(&entries, end, None), Err(BrokenChain::Unlinked(4)));
    let mut entries = log(5);
    entries.remove(2);
    assert_eq!(verify(&entries, end, None), Err(BrokenChain::Missing { expected: 3, found: 4 }));
}

#[test]
fn entries_that_are_missing_at_the_end_are_found() {
    let entries = log(5);
    let end = last(&entries);
    assert_eq!(verify(&entries[..3], end, None), Err(BrokenChain::WrongEnd { found: 3, written: 5 }));
    assert_eq!(verify(&[], end, None), Err(BrokenChain::WrongEnd { found: 0, written: 5 }));
}

#[test]
fn a_log_that_was_written_anew_is_found_by_one_entry_that_was_noted() {
    let noted = last(&log(3));
    assert_eq!(verify(&log(5), last(&log(5)), Some(noted)), Ok(()));
    let mut anew = log(3);
    anew[2].reason = "a better one".to_owned();
    anew[2].hash = anew[2].computed_hash();
    assert_eq!(verify(&anew, last(&anew), None), Ok(()), "the chain alone cannot tell");
    assert_eq!(verify(&anew, last(&anew), Some(noted)), Err(BrokenChain::NotAsNoted(3)));
    assert_eq!(verify(&log(2), last(&log(2)), Some(noted)), Err(BrokenChain::NotedMissing(3)));
    assert_eq!(Noted::parse(&noted.to_string()), Some(noted));
}

#[test]
fn a_hash_is_written_in_one_way() {
    let hash = log(1)[0].hash.to_string();
    assert!(ChainHash::parse(&hash).is_some());
    assert_eq!(ChainHash::parse(&hash.to_uppercase()), None);
    assert_eq!(ChainHash::parse(&hash[1..]), None);
}

#[test]
fn entries_of_the_first_form_still_verify() {
    // As a release before sources and keys wrote it.
    let mut entry = AuditEntry { source: None, key: None, rollout: None, ..log(1).remove(0) };
    entry.hash = entry.computed_hash();
    assert_eq!(entry.hash.to_string(), "402b7bf6e4288698e397727eb95f4a586c4f0e285a3615b5b8419101e989698c");
    assert_eq!(verify_link(0, ChainHash::GENESIS, &entry), Ok(()));
    for tampered in [
        AuditEntry { rollout: Some(String::new()), ..entry.clone() },
        AuditEntry { key: Some(String::new()), ..entry.clone() },
        AuditEntry { source: Some(String::new()), ..entry },
    ] {
        assert_eq!(verify_link(0, ChainHash::GENESIS, &tampered), Err(BrokenChain::Changed(1)));
    }
}

#[test]
fn an_export_verifies_without_the_server() {
    insta::assert_snapshot!("export", export(&log(3)).concat());
    for n in [0, 1, 5] {
        let entries = log(n);
        let exported = check(export(&entries).concat().as_bytes()).unwrap();
        assert_eq!((exported.entries(), exported.last), (n, last(&entries)));
    }
}

#[test]
fn any_changed_byte_of_an_export_is_found() {
    let file = export(&log(4)).concat().into_bytes();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let found = check(&changed);
            assert!(found.is_err(), "bit {bit} of byte {at}: {}", String::from_utf8_lossy(&changed));
        }
    }
}

#[test]
fn what_was_tampered_with_is_named() {
    let lines = export(&log(4));
    let named = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        check(lines.concat().as_bytes()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            named(&|lines| lines[2] = lines[2].replace("step 1", "step 2")),
            named(&|lines| lines[2] = lines[2].replace("{\"seq\"", "{ \"seq\"")),
            named(&|lines| lines[2] = lines[2].replace("\"weight\"", "weight")),
            named(&|lines| drop(lines.remove(2))),
            named(&|lines| lines.swap(2, 3)),
            named(&|lines| lines.insert(2, lines[2].clone())),
            named(&|lines| drop(lines.pop())),
            named(&|lines| drop(lines.drain(3..5))),
            named(&|lines| lines.push("{}\n".to_owned())),
            named(&|lines| drop(lines.remove(0))),
            named(&|lines| assert_eq!(lines[5].pop(), Some('\n'))),
        ]
        .join("\n")
    );
}

proptest! {
    #[test]
    fn no_rearrangement_of_an_export_verifies(
        at in 0usize..2_000, length in 0usize..300, with in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let file = export(&log(4)).concat().into_bytes();
        let at = at % file.len();
        let end = (at + length).min(file.len());
        let changed = [&file[..at], &with, &file[end..]].concat();
        prop_assume!(changed != file);
        prop_assert!(check(&changed).is_err());
    }
}

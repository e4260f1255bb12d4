//! `spec.rollout.schedule`: windows of the day, each with a weight.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::walk::{Field, Spot, Walk};
use crate::fields::{self, MOST_WINDOWS};
use crate::manifest::Value;
use crate::plan::{Schedule, Window};
use crate::schedule::REFERENCE_YEAR;
use crate::weight::Weight;

/// Minutes of a day.
const DAY: u16 = 1_440;

/// Reads the list; outside all windows the weight is `otherwise`, and none is above `most`.
pub(super) fn schedule(walk: &mut Walk, field: &Field<'_>, otherwise: Weight, most: Weight) -> Schedule {
    let items = walk.list(field, MOST_WINDOWS);
    if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
        walk.error_with_hint(&field.spot, "the list is empty", "remove `schedule`, or list its windows");
    }
    let mut windows: Vec<Window> = Vec::new();
    for item in &items {
        let Some((window, spot)) = entry(walk, item, most) else { continue };
        for earlier in &windows {
            if let Some(when) = overlap(earlier, &window) {
                let message =
                    format!("window {:?} overlaps {:?}{when}", window.as_written, earlier.as_written);
                walk.error_with_hint(
                    &spot,
                    message,
                    "windows are half open: one may begin at the minute another ends",
                );
            }
        }
        windows.push(window);
    }
    Schedule { windows, otherwise }
}

fn entry(walk: &mut Walk, item: &Field<'_>, most: Weight) -> Option<(Window, Spot)> {
    let fields = walk.fields(item, &fields::WINDOW)?;
    let weight = walk.require(&fields, "canaryWeight", "10%").and_then(|field| {
        let weight = walk.weight(&field)?;
        if weight > most {
            walk.error(&field.spot, format!("weight {weight} is above the {most} that `holdback` leaves"));
        }
        Some(weight)
    });
    let field = walk.require(&fields, "window", "\"02:00-06:00 UTC\"")?;
    let text = &walk.scalar(&field)?.text;
    match window(text) {
        Ok(window) => Some((Window { weight: weight?, ..window }, field.spot)),
        Err((message, hint)) => {
            walk.error_with_hint(&field.spot, message, hint);
            None
        }
    }
}

/// Reads `HH:MM-HH:MM ZONE`; its weight is not known here.
pub(super) fn window(text: &str) -> Result<Window, (String, String)> {
    let malformed = || {
        (
            format!("{text:?} is no window"),
            "write it as \"02:00-06:00 UTC\" or \"22:00-06:00 Europe/Berlin\"".to_owned(),
        )
    };
    let (hours, zone) = text.trim().split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (from, to) = hours.split_once('-').ok_or_else(malformed)?;
    let from = minute(from).filter(|minute| *minute < DAY).ok_or_else(malformed)?;
    let to = minute(to).ok_or_else(malformed)?;
    if from == to {
        let message = format!("window {text:?} opens and closes at the same minute");
        return Err((message, "the whole day is \"00:00-24:00 UTC\"".to_owned()));
    }
    let zone = zone.trim();
    let unknown_zone = || {
        (
            format!("time zone {zone:?} is not known"),
            "write UTC or an IANA name such as Europe/Berlin".to_owned(),
        )
    };
    let known = TimeZone::get(zone).map_err(|_| unknown_zone())?;
    let zone = known.iana_name().ok_or_else(unknown_zone)?.to_owned();
    Ok(Window {
        from_minute: from,
        to_minute: to % DAY,
        zone,
        weight: Weight::ZERO,
        as_written: text.to_owned(),
    })
}

/// The minute of the day, 0 to 1440, of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= DAY).then_some(total)
}

/// Whether two windows share a minute; for different zones, the first day on which they do, in words.
///
/// Two windows share a minute exactly when one of them opens inside the other.
fn overlap(a: &Window, b: &Window) -> Option<String> {
    if a.zone == b.zone {
        let inside = |minute: u16, window: &Window| {
            if window.from_minute < window.to_minute {
                (window.from_minute..window.to_minute).contains(&minute)
            } else {
                minute >= window.from_minute || minute < window.to_minute
            }
        };
        return (inside(a.from_minute, b) || inside(b.from_minute, a)).then(String::new);
    }
    let first = Date::new(REFERENCE_YEAR, 1, 1).expect("the first of January exists");
    let mut days = first.series(jiff::Span::new().days(1)).take_while(|day| day.year() == REFERENCE_YEAR);
    let opens_inside = |day: Date, window: &Window, other: &Window| {
        let hour = i8::try_from(window.from_minute / 60).expect("an hour is below 24");
        let minute = i8::try_from(window.from_minute % 60).expect("a minute is below 60");
        let time = Time::new(hour, minute, 0, 0).expect("a minute of the day is a time");
        let opens =
            day.to_datetime(time).in_tz(&window.zone).expect("the zone was found when the window was read");
        other.contains(opens.timestamp())
    };
    let day = days.find(|day| opens_inside(*day, a, b) || opens_inside(*day, b, a))?;
    Some(format!(", for example on {day}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Window {
        window(text).unwrap_or_else(|(message, _)| panic!("{message}"))
    }

    fn refused(text: &str) -> String {
        window(text).expect_err("the window is wrong").0
    }

    #[test]
    fn windows_are_read_as_people_write_them() {
        let minutes = |text: &str| (read(text).from_minute, read(text).to_minute);
        assert_eq!(minutes("02:00-06:30 UTC"), (120, 390));
        assert_eq!(minutes("18:00-24:00 Europe/Berlin"), (1_080, 0));
        assert_eq!(minutes("00:00-24:00 UTC"), (0, 0));
        assert_eq!(read("18:00-02:00 europe/berlin").zone, "Europe/Berlin");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "02:00-06:00",
            "2:00-06:00 UTC",
            "02:60-06:00 UTC",
            "24:00-06:00 UTC",
            "02:00-24:01 UTC",
            "02-06 UTC",
            "é2:00-06:00 UTC",
        ] {
            assert!(refused(text).ends_with("is no window"), "{text}");
        }
        assert_eq!(
            refused("06:00-06:00 UTC"),
            "window \"06:00-06:00 UTC\" opens and closes at the same minute"
        );
        assert_eq!(refused("02:00-06:00 Mars/Base"), "time zone \"Mars/Base\" is not known");
    }

    #[test]
    fn windows_that_share_a_minute_overlap() {
        let overlaps = |a: &str, b: &str| overlap(&read(a), &read(b));
        assert_eq!(overlaps("02:00-06:00 UTC", "06:00-18:00 UTC"), None);
        assert_eq!(overlaps("18:00-02:00 UTC", "02:00-06:00 UTC"), None);
        assert_eq!(overlaps("18:00-02:00 UTC", "01:59-06:00 UTC"), Some(String::new()));
        assert_eq!(overlaps("03:00-04:00 UTC", "02:00-06:00 UTC"), Some(String::new()));
        assert_eq!(overlaps("00:00-24:00 UTC", "02:00-06:00 UTC"), Some(String::new()));
    }

    #[test]
    fn windows_of_different_zones_are_compared_through_a_year() {
        let overlaps = |a: &str, b: &str| overlap(&read(a), &read(b));
        // Berlin is one hour ahead of UTC in winter, two in summer time, which begins on 29 March.
        assert_eq!(
            overlaps("08:00-09:00 UTC", "09:00-10:00 Europe/Berlin"),
            Some(", for example on 2026-01-01".to_owned())
        );
        assert_eq!(
            overlaps("08:00-09:00 UTC", "10:00-11:00 Europe/Berlin"),
            Some(", for example on 2026-03-29".to_owned())
        );
        assert_eq!(overlaps("08:00-09:00 UTC", "12:00-13:00 Europe/Berlin"), None);
        // An opening that the change to summer time skips is no panic.
        assert_eq!(overlaps("02:30-02:45 Europe/Berlin", "12:00-13:00 UTC"), None);
    }
}

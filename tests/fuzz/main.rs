//! Fuzzing: every parser that reads what others send, and the server's answer function, on mutations of a kept corpus.
//!
//! Input number N of a run depends on the seed, the target and N alone, so whatever breaks is told as two numbers that
//! bring it back. What holds for all input is stated beside the code (`wire::dns::fuzz`) and in [`answer`].
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `FUNICULAR_FUZZ_SEED` | where the inputs come from | always the same |
//! | `FUNICULAR_FUZZ_SECONDS` | how long each target runs | 2 |
//! | `FUNICULAR_FUZZ_MESSAGES` | how many inputs each target runs, whatever it takes | as many as there is time for |
//! | `FUNICULAR_FUZZ_AT` | the one input to run | all |
//!
//! `tests/soak` runs the long form.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answer;
mod campaign;
mod corpus;
mod mutate;

use campaign::hold;
use funicular::model::Name;
use funicular::wire::dns::fuzz;
use funicular::wire::dns::query::Query;

#[test]
fn whole_messages_say_back_what_they_said() {
    hold("message", fuzz::message);
}

#[test]
fn the_fast_path_reads_a_question_without_harm() {
    hold("query", |octets| {
        if let Ok(query) = Query::parse(octets) {
            assert!(query.end() <= octets.len());
        }
    });
}

#[test]
fn names_say_back_what_they_said() {
    hold("name", |octets| {
        if let Ok(name) = Name::from_wire(octets) {
            let read: Name = name.to_string().parse().unwrap();
            assert_eq!(read.wire(), octets, "{name}");
        }
        let text = String::from_utf8_lossy(octets);
        if let Ok(name) = text.parse::<Name>() {
            assert_eq!(Name::from_wire(name.wire()).unwrap().wire(), name.wire());
            assert_eq!(name.to_string().parse::<Name>().unwrap().wire(), name.wire());
        }
    });
}

#[test]
fn record_data_of_every_type_says_back_what_it_said() {
    hold("rdata", fuzz::rdata);
}

#[test]
fn the_text_of_record_data_says_back_what_it_said() {
    hold("rdata_text", fuzz::rdata_text);
}

#[test]
fn zone_files_say_back_what_they_said() {
    hold("zone_file", fuzz::zone_file);
}

#[test]
fn what_a_service_publishes_is_read_or_refused() {
    hold("service", fuzz::service);
}

#[test]
fn nothing_made_up_passes_for_signed() {
    hold("tsig", fuzz::tsig);
}

#[test]
fn an_update_changes_a_zone_by_what_its_delta_says() {
    let (zones, _) = answer::zones();
    let zone = zones.zone(&answer::APEX.parse().unwrap()).unwrap().clone();
    let mut changed = 0_u64;
    hold("update", |octets| changed += u64::from(funicular::peak::fuzz::update(octets, &zone)));
    println!("update: {changed} changed the zone");
}

#[test]
fn the_state_of_a_zone_says_back_what_it_said() {
    hold("zone_state", fuzz::zone_state);
}

#[test]
fn the_server_answers_anything_by_the_rules() {
    answer::hold_the_server();
}

//! Computes and checks an address of a service from code, by the arithmetic that the sidecars use.
//!
//! ```text
//! cargo run --example address
//! ```

use std::net::Ipv6Addr;

use funicular::model::ssa::{AplItem, Inputs, Known, Rule, Space};
use funicular::ops::{clock, entropy};

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", answer("2001:db8:1::10".parse()?)?);
    Ok(())
}

/// An address of the service for `source`, and what a server finds about it.
pub(crate) fn answer(source: Ipv6Addr) -> Result<String, Box<dyn std::error::Error>> {
    // What DNS publishes: the space in an APL record, the rule in an SVCB or TXT record.
    let space = Space::new(&["2:2001:db8:5:1::/64".parse::<AplItem>()?])?;
    let rule = Rule::parse("v=ssa1 layout=random:16,source-hash:48/128 slices=14", &space)?;

    // The caller. Time and randomness are arguments, so the same code serves simulations.
    let inputs = Inputs { source, content: b"", secret: None, now: clock::now() };
    let address = rule.compute(&space, &inputs, 0, &mut entropy::draw)?;

    // The server, which knows who the packets came from.
    let verdict = |source| match rule.check(&space, address, &Known { source: Some(source), ..Known::default() }) {
        Ok(()) => String::from("right"),
        Err(wrong) => format!("wrong: {wrong}"),
    };
    let stranger = Ipv6Addr::LOCALHOST;
    Ok(format!("{address} is {} for {source}, {} for {stranger}", verdict(source), verdict(stranger)))
}

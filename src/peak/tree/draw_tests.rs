//! The drawing, to the letter.

use super::super::survey::Lameness;
use super::*;
use crate::model::Name;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn server(text: &str, addr: &str, standing: Standing) -> Server {
    Server { name: Some(name(text)), addr: Some(addr.parse().unwrap()), standing }
}

fn zone(apex: &str, servers: Vec<Server>, zones: Vec<Zone>) -> Zone {
    Zone { apex: name(apex), servers, faults: Vec::new(), below: Below::Transferred, zones }
}

fn hierarchy() -> Zone {
    let serves = |serial| Standing::Serves { serial };
    let mut lame =
        zone("b.peak.", vec![server("ns.b.peak.", "[2001:db8::b]:53", Standing::Lame(Lameness::Timeout))], vec![]);
    lame.faults = vec![
        Fault::Lame {
            server: Some(name("ns.b.peak.")),
            addr: "[2001:db8::b]:53".parse().unwrap(),
            why: Lameness::Timeout,
        },
        Fault::NobodyServes,
    ];
    lame.below = Below::Unknown;
    let deeper = zone("x.a.peak.", vec![server("ns.x.a.peak.", "192.0.2.9:53", serves(1))], vec![]);
    let a = zone("a.peak.", vec![server("ns.a.peak.", "192.0.2.2:5300", serves(3))], vec![deeper]);
    zone("peak.", vec![server("ns.peak.", "192.0.2.1:53", serves(7))], vec![a, lame])
}

#[test]
fn a_hierarchy_is_drawn_with_its_servers_and_faults() {
    let drawn = text(&hierarchy());
    let expected = "\
peak.
│   ns.peak.                            192.0.2.1                serial 7
├── a.peak.
│   │   ns.a.peak.                      192.0.2.2:5300           serial 3
│   └── x.a.peak.
│           ns.x.a.peak.                192.0.2.9                serial 1
└── b.peak.
        ns.b.peak.                      2001:db8::b              lame
        ! lame delegation: ns.b.peak. at [2001:db8::b]:53 does not answer
        ! no server of the zone serves it
          (nobody could be asked for zones below)

4 zones, 2 faults
";
    assert_eq!(drawn, expected, "{drawn}");
}

#[test]
fn no_line_is_longer_than_80_columns_though_names_are_long() {
    let long = format!("{}.{}.peak.", "n".repeat(24), "s".repeat(24));
    let addr = "[2001:db8:1111:2222:3333:4444:5555:6666]:53";
    let mut wide = zone("peak.", vec![server(&long, addr, Standing::Serves { serial: u32::MAX })], vec![]);
    wide.faults = vec![Fault::NotInZone { server: name(&long) }, Fault::MissingGlue { server: name(&long) }];
    let deep = (0..3).fold(wide, |below, _| zone("peak.", vec![], vec![below]));
    let drawn = text(&deep);
    let too_long: Vec<&str> = drawn.lines().filter(|line| line.chars().count() > COLUMNS).collect();
    assert_eq!(too_long, [""; 0], "{drawn}");
}

#[test]
fn programs_get_the_same_with_stable_words() {
    let tree = to_json(&hierarchy());
    assert_eq!((&tree["faults"], &tree["zones"]), (&json!(2), &json!(4)));
    let lame = &tree["tree"]["zones"][1];
    assert_eq!(lame["servers"][0]["lame"], "timeout");
    assert_eq!(lame["faults"][0]["reason"], "lame-delegation");
    assert_eq!(tree["tree"]["servers"][0]["serial"], 7);
}

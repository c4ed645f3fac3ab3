//! Messages made and read by hand, octet by octet (RFC 1035 §4.1, RFC 6891 §6.1).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};

use super::bed::PATIENCE;

/// The id of every request that is judged, and that of the one behind it.
pub(crate) const ID: u16 = 0x1234;
const MARKER: u16 = 0xffff;

pub(crate) const OPT: u16 = 41;

/// A name's octets; no escapes.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let labels = text.trim_end_matches('.').split('.').filter(|label| !label.is_empty());
    let mut octets: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    octets.push(0);
    octets
}

/// A header: id, flags, counts.
pub(crate) fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [ID, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

/// A question in class IN.
pub(crate) fn question(of: &str, qtype: u16) -> Vec<u8> {
    question_in(of, qtype, 1)
}

pub(crate) fn question_in(of: &str, qtype: u16, class: u16) -> Vec<u8> {
    [&name(of)[..], &qtype.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// A request with one question and these flags.
pub(crate) fn asked(of: &str, qtype: u16, flags: u16) -> Vec<u8> {
    [header(flags, [1, 0, 0, 0]), question(of, qtype)].concat()
}

/// An OPT record.
pub(crate) fn opt(size: u16, version: u8, flags: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let option =
        |(code, data): &(u16, &[u8])| [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat();
    let options: Vec<u8> = options.iter().flat_map(option).collect();
    let mut octets = vec![0];
    octets.extend(OPT.to_be_bytes());
    octets.extend(size.to_be_bytes());
    octets.extend([0, version]);
    octets.extend(flags.to_be_bytes());
    octets.extend((options.len() as u16).to_be_bytes());
    octets.extend(options);
    octets
}

/// A request with one question and this OPT record.
pub(crate) fn asked_with(of: &str, qtype: u16, opt: &[u8]) -> Vec<u8> {
    [&header(0, [1, 0, 0, 1])[..], &question(of, qtype), opt].concat()
}

/// A record of a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

/// A reply, as it lies there.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) octets: Vec<u8>,
    pub(crate) question: Vec<u8>,
    /// Answer, authority, additional without OPT.
    pub(crate) sections: [Vec<Record>; 3],
    pub(crate) opt: Option<Record>,
}

impl Reply {
    /// Reads a reply to the last octet.
    pub(crate) fn read(octets: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let mut at = 12;
        for _ in 0..word(4) {
            at = behind_name(octets, at) + 4;
        }
        let question = octets[12..at].to_vec();
        let mut sections = [const { Vec::new() }; 3];
        let mut found = None;
        for (section, count) in sections.iter_mut().zip([word(6), word(8), word(10)]) {
            for _ in 0..count {
                let fixed = behind_name(octets, at);
                let length = usize::from(word(fixed + 8));
                let record = Record {
                    rtype: word(fixed),
                    class: word(fixed + 2),
                    ttl: u32::from_be_bytes(octets[fixed + 4..fixed + 8].try_into().unwrap()),
                    data: octets[fixed + 10..fixed + 10 + length].to_vec(),
                };
                at = fixed + 10 + length;
                if record.rtype == OPT {
                    assert!(found.replace(record).is_none(), "two OPT records");
                } else {
                    section.push(record);
                }
            }
        }
        assert_eq!(at, octets.len(), "octets behind the end");
        Self { octets: octets.to_vec(), question, sections, opt: found }
    }

    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.octets[0], self.octets[1]])
    }

    /// A bit of the flags, counted as in the RFCs' pictures: QR is 15.
    pub(crate) fn flag(&self, bit: u16) -> bool {
        u16::from_be_bytes([self.octets[2], self.octets[3]]) >> bit & 1 == 1
    }

    pub(crate) fn aa(&self) -> bool {
        self.flag(10)
    }

    pub(crate) fn tc(&self) -> bool {
        self.flag(9)
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.octets[2] >> 3 & 0x0f
    }

    /// With the upper bits that OPT carries.
    pub(crate) fn rcode(&self) -> u16 {
        let upper = self.opt.as_ref().map_or(0, |opt| opt.ttl >> 24) as u16;
        upper << 4 | u16::from(self.octets[3] & 0x0f)
    }

    pub(crate) fn answers(&self, rtype: u16) -> usize {
        self.sections[0].iter().filter(|record| record.rtype == rtype).count()
    }

    /// NODATA or NXDOMAIN: the SOA record stands in the authority section, alone.
    pub(crate) fn negative(&self) -> bool {
        self.sections[0].is_empty() && matches!(&self.sections[1][..], [soa] if soa.rtype == 6)
    }

    /// The options in OPT.
    pub(crate) fn options(&self) -> Vec<(u16, Vec<u8>)> {
        let mut rest = self.opt.as_ref().map_or(&[][..], |opt| &opt.data);
        let mut options = Vec::new();
        while let [a, b, c, d, tail @ ..] = rest {
            let (data, behind) = tail.split_at(usize::from(u16::from_be_bytes([*c, *d])));
            options.push((u16::from_be_bytes([*a, *b]), data.to_vec()));
            rest = behind;
        }
        assert!(rest.is_empty(), "OPT ends within an option");
        options
    }

    pub(crate) fn edns_version(&self) -> Option<u8> {
        self.opt.as_ref().map(|opt| (opt.ttl >> 16) as u8)
    }

    pub(crate) fn edns_flags(&self) -> u16 {
        self.opt.as_ref().map_or(0, |opt| opt.ttl as u16)
    }

    /// The answers' data of one type, to compare sets.
    pub(crate) fn data(&self, rtype: u16) -> Vec<Vec<u8>> {
        let of_type = self.sections[0].iter().filter(|record| record.rtype == rtype);
        let mut data: Vec<Vec<u8>> = of_type.map(|record| record.data.clone()).collect();
        data.sort();
        data
    }
}

fn behind_name(octets: &[u8], mut at: usize) -> usize {
    loop {
        match octets[at] {
            0 => return at + 1,
            length @ 1..=63 => at += usize::from(length) + 1,
            0xc0.. => return at + 2,
            other => panic!("a label begins with {other}"),
        }
    }
}

/// The reply over UDP.
pub(crate) fn over_udp(server: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let socket = asking(server);
    socket.send(request).unwrap();
    received(&socket)
}

/// The reply over UDP to what should have none: a question sent right behind it is answered first then.
pub(crate) fn over_udp_if_any(server: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let socket = asking(server);
    socket.send(request).unwrap();
    let mut marker = asked(super::bed::APEX, 6, 0);
    marker[..2].copy_from_slice(&MARKER.to_be_bytes());
    socket.send(&marker).unwrap();
    received(&socket).filter(|reply| reply[..2] != MARKER.to_be_bytes())
}

fn asking(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut reply = vec![0; 65_535];
    let length = socket.recv(&mut reply).ok()?;
    reply.truncate(length);
    Some(reply)
}

/// The reply over TCP; none when the connection ends without one.
pub(crate) fn over_tcp(server: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(request)).unwrap();
    // So that silence is told by the end of the connection.
    stream.shutdown(Shutdown::Write).unwrap();
    read_framed(&mut stream)
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

pub(crate) fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Some(message)
}

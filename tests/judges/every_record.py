"""every_record.py PORT APEX FILE: asks 127.0.0.1 for every set that dnspython reads in a zone file, over UDP and TCP.

Prints each set that comes otherwise than it stands in the file; exit code 1 when there is one.
"""

import sys

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdataclass
import dns.rdatatype
import dns.zone

IN, NS = dns.rdataclass.IN, dns.rdatatype.NS
port, apex, file = int(sys.argv[1]), dns.name.from_text(sys.argv[2]), sys.argv[3]
zone = dns.zone.from_file(file, origin=apex, relativize=False)
cuts = [name for name, node in zone.items() if name != apex and node.get_rdataset(IN, NS)]
wrong = asked = 0


def ask(name, rdtype, over_tcp):
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232)
    query.flags &= ~dns.flags.RD
    if over_tcp:
        return dns.query.tcp(query, "127.0.0.1", port=port, timeout=20)
    reply, _ = dns.query.udp_with_fallback(query, "127.0.0.1", port=port, timeout=20)
    return reply


for name, node in zone.items():
    if any(name.is_subdomain(cut) for cut in cuts):
        continue
    for rdataset in node:
        for over_tcp in (False, True):
            asked += 1
            reply = ask(name, rdataset.rdtype, over_tcp)
            found = reply.get_rrset(reply.answer, name, rdataset.rdclass, rdataset.rdtype)
            authority = reply.flags & dns.flags.AA
            if found is None or found.to_rdataset() != rdataset or found.ttl != rdataset.ttl or not authority:
                wrong += 1
                print(f"{name} {dns.rdatatype.to_text(rdataset.rdtype)} tcp={over_tcp}: {found} is not {rdataset}")

for cut in cuts:
    asked += 1
    reply = ask(dns.name.from_text("below", cut), "A", False)
    servers = reply.get_rrset(reply.authority, cut, IN, NS)
    if reply.flags & dns.flags.AA or servers is None or servers.to_rdataset() != zone[cut].get_rdataset(IN, NS):
        wrong += 1
        print(f"{cut}: no referral: {reply}")

print(f"{asked} asked, {wrong} wrong")
sys.exit(1 if wrong or asked < 80 else 0)

//! Expressions as netlink carries them: a name, and attributes whose numbers each name has for itself.
//!
//! Reading accepts exactly what writing makes, plus attributes in which a kernel states a default; the rest is foreign.

use super::attributes::{self, Attributes};
use super::lower::{Expression, conntrack, meta};

/// Attributes of an item: enum nft_expr_attributes.
const NAME: u16 = 1;
const DATA: u16 = 2;

/// Attributes of data: enum nft_data_attributes, and inside a verdict its code.
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// The register that everything goes through, NFT_REG_1, and the one of verdicts.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const CODE_DROP: u32 = 0;
const CODE_ACCEPT: u32 = 1;
/// NFT_CMP_EQ and NFT_CMP_NEQ.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// NFT_BYTEORDER_HTON.
const HOST_TO_NETWORK: u32 = 1;
/// NFT_REJECT_TCP_RST.
const REJECT_RESET: u32 = 1;
/// NFT_REJECT_ICMPX_UNREACH, and NFT_REJECT_ICMPX_PORT_UNREACH.
const REJECT_ICMPX: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;
/// NFT_LOOKUP_F_INV.
const LOOKUP_INVERTED: u32 = 1;
/// NFT_RT_NEXTHOP6.
const NEXT_HOP_V6: u32 = 2;
/// NF_NAT_RANGE_PROTO_SPECIFIED: kernels before 5.18 do not infer it.
const PORT_GIVEN: u32 = 2;

/// An expression as an item of a rule's list.
pub(super) fn encode(expression: &Expression) -> Attributes {
    let (name, data) = terms(expression);
    Attributes::default().text(NAME, name).nest(DATA, data)
}

/// An expression's name and its own attributes.
fn terms(expression: &Expression) -> (&str, Attributes) {
    let new = Attributes::default;
    let value = |octets: &[u8]| new().bytes(DATA_VALUE, octets);
    let verdict = |code| {
        let verdict = new().nest(DATA_VERDICT, new().number(VERDICT_CODE, code));
        ("immediate", new().number(1, VERDICT_REGISTER).nest(2, verdict))
    };
    match expression {
        Expression::Meta(key) => ("meta", new().number(1, REGISTER).number(2, *key)),
        Expression::Conntrack(key) => ("ct", new().number(1, REGISTER).number(2, *key)),
        Expression::Payload { base, offset, len } => {
            ("payload", new().number(1, REGISTER).number(2, *base).number(3, *offset).number(4, *len))
        }
        Expression::Mask(mask) => {
            let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
            let zero = vec![0; mask.len()];
            let registers = new().number(1, REGISTER).number(2, REGISTER).number(3, len);
            ("bitwise", registers.nest(4, value(mask)).nest(5, value(&zero)))
        }
        Expression::ToNetworkOrder => {
            let registers = new().number(1, REGISTER).number(2, REGISTER);
            ("byteorder", registers.number(3, HOST_TO_NETWORK).number(4, 4).number(5, 4))
        }
        Expression::Compare { negated, value: against } => {
            let operator = if *negated { NOT_EQUAL } else { EQUAL };
            ("cmp", new().number(1, REGISTER).number(2, operator).nest(3, value(against)))
        }
        Expression::Lookup { set, negated: false } => ("lookup", new().text(1, set).number(2, REGISTER)),
        Expression::Lookup { set, negated: true } => {
            ("lookup", new().text(1, set).number(2, REGISTER).number(5, LOOKUP_INVERTED))
        }
        Expression::NextHop => ("rt", new().number(1, REGISTER).number(2, NEXT_HOP_V6)),
        Expression::SetMark => ("meta", new().number(2, meta::MARK).number(3, REGISTER)),
        Expression::SetConnectionMark => ("ct", new().number(2, conntrack::MARK).number(4, REGISTER)),
        Expression::Load(octets) => ("immediate", new().number(1, REGISTER).nest(2, value(octets))),
        Expression::Accept => verdict(CODE_ACCEPT),
        Expression::Drop => verdict(CODE_DROP),
        Expression::Reject => ("reject", new().number(1, REJECT_ICMPX).bytes(2, &[PORT_UNREACHABLE])),
        Expression::Reset => ("reject", new().number(1, REJECT_RESET)),
        Expression::Redirect => ("redir", new().number(1, REGISTER).number(3, PORT_GIVEN)),
        Expression::Foreign(name) => (name, new()),
    }
}

/// The inverse of [`encode`]. Anything that it would not write is foreign.
pub(super) fn decode(item: &[u8]) -> Expression {
    let name = attributes::find(item, NAME).map(attributes::text).unwrap_or_default();
    let data = attributes::find(item, DATA).unwrap_or_default();
    read_known(&name, data).unwrap_or(Expression::Foreign(name))
}

fn read_known(name: &str, from: &[u8]) -> Option<Expression> {
    let number = |kind| attributes::find(from, kind).and_then(attributes::number);
    let value = |kind| attributes::find(attributes::find(from, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
    let register = |kind| (number(kind)? == REGISTER).then_some(());
    match name {
        "meta" if number(3).is_some() => {
            register(3)?;
            (number(2)? == meta::MARK).then_some(Expression::SetMark)
        }
        "ct" if number(4).is_some() => {
            register(4)?;
            (number(2)? == conntrack::MARK).then_some(Expression::SetConnectionMark)
        }
        "rt" => {
            register(1)?;
            (number(2)? == NEXT_HOP_V6).then_some(Expression::NextHop)
        }
        "meta" => {
            register(1)?;
            Some(Expression::Meta(number(2)?))
        }
        "ct" => {
            register(1)?;
            number(3).is_none().then_some(Expression::Conntrack(number(2)?))
        }
        "payload" => {
            register(1)?;
            Some(Expression::Payload { base: number(2)?, offset: number(3)?, len: number(4)? })
        }
        "bitwise" => {
            register(1)?;
            register(2)?;
            let untouched = value(5)?.iter().all(|octet| *octet == 0);
            let masks = number(6).is_none_or(|operation| operation == 0);
            (untouched && masks).then_some(Expression::Mask(value(4)?))
        }
        "byteorder" => {
            register(1)?;
            register(2)?;
            ((number(3)?, number(4)?, number(5)?) == (HOST_TO_NETWORK, 4, 4)).then_some(Expression::ToNetworkOrder)
        }
        "cmp" => {
            register(1)?;
            let negated = match number(2)? {
                EQUAL => false,
                NOT_EQUAL => true,
                _ => return None,
            };
            Some(Expression::Compare { negated, value: value(3)? })
        }
        "lookup" => {
            register(2)?;
            let negated = match number(5) {
                None | Some(0) => false,
                Some(LOOKUP_INVERTED) => true,
                Some(_) => return None,
            };
            let set = attributes::text(attributes::find(from, 1)?);
            number(3).is_none().then_some(Expression::Lookup { set, negated })
        }
        "immediate" if number(1)? == VERDICT_REGISTER => {
            let verdict = attributes::find(attributes::find(from, 2)?, DATA_VERDICT)?;
            match attributes::number(attributes::find(verdict, VERDICT_CODE)?)? {
                CODE_ACCEPT => Some(Expression::Accept),
                CODE_DROP => Some(Expression::Drop),
                _ => None,
            }
        }
        "immediate" => {
            register(1)?;
            Some(Expression::Load(value(2)?))
        }
        "reject" if number(1)? == REJECT_RESET => Some(Expression::Reset),
        "reject" => {
            let code = attributes::find(from, 2)?.first().copied()?;
            ((number(1)?, code) == (REJECT_ICMPX, PORT_UNREACHABLE)).then_some(Expression::Reject)
        }
        "redir" => {
            register(1)?;
            let one_port = number(2).is_none_or(|end| end == REGISTER);
            (one_port && number(3)? == PORT_GIVEN).then_some(Expression::Redirect)
        }
        _ => None,
    }
}

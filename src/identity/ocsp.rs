//! OCSP responses (RFC 6960), as far as a server must know them that passes one on: whether it is about this certificate
//! and says that it is good, and until when. Who signed it the client verifies.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Why a response is not passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OcspError {
    /// It is no OCSP response in DER, or one that holds no answer.
    #[error("it is no successful OCSP response in DER")]
    Malformed,
    /// It is about other certificates.
    #[error("it is about another certificate")]
    OtherCertificate,
    /// Revoked, or unknown.
    #[error("it does not say that the certificate is good")]
    NotGood,
    /// It could be passed on for ever.
    #[error("it has no nextUpdate")]
    Endless,
}

/// Until when a response says that the certificate with this serial number (content octets of the INTEGER) is good, in
/// seconds since 1970.
///
/// # Errors
/// It does not say so.
pub fn good_until(response: &[u8], serial: &[u8]) -> Result<i64, OcspError> {
    let single = single_responses(response).ok_or(OcspError::Malformed)?;
    let mut rest = single;
    while let Some((response, behind)) = element(SEQUENCE, rest) {
        rest = behind;
        let (id, status) = element(SEQUENCE, response).ok_or(OcspError::Malformed)?;
        if serial_of(id).ok_or(OcspError::Malformed)? != serial {
            continue;
        }
        let (_, times) = element(GOOD, status).ok_or(OcspError::NotGood)?;
        let (_, times) = element(TIME, times).ok_or(OcspError::Malformed)?;
        let (next, _) = element(NEXT_UPDATE, times).ok_or(OcspError::Endless)?;
        let (next, _) = element(TIME, next).ok_or(OcspError::Malformed)?;
        return seconds(next).ok_or(OcspError::Malformed);
    }
    Err(OcspError::OtherCertificate)
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const ENUMERATED: u8 = 0x0A;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `responseBytes [0]`, `version [0]`, `nextUpdate [0]`.
const FIRST: u8 = 0xA0;
const NEXT_UPDATE: u8 = FIRST;
/// `good [0] IMPLICIT NULL`.
const GOOD: u8 = 0x80;
/// 1.3.6.1.5.5.7.48.1.1
const BASIC: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// What stands in `responses` of the basic response.
fn single_responses(response: &[u8]) -> Option<&[u8]> {
    let (response, behind) = element(SEQUENCE, response)?;
    let (status, bytes) = element(ENUMERATED, response)?;
    let (bytes, _) = element(FIRST, bytes)?;
    let (bytes, _) = element(SEQUENCE, bytes)?;
    let (kind, bytes) = element(OBJECT_ID, bytes)?;
    let (basic, _) = element(OCTETS, bytes)?;
    let (basic, _) = element(SEQUENCE, basic)?;
    let (data, _) = element(SEQUENCE, basic)?;
    // version, responderID and producedAt go before.
    let data = element(FIRST, data).map_or(data, |(_, behind)| behind);
    let (_, _, data) = first(data)?;
    let (_, data) = element(TIME, data)?;
    let (single, _) = element(SEQUENCE, data)?;
    (status == [0] && kind == BASIC && behind.is_empty()).then_some(single)
}

/// hashAlgorithm, issuerNameHash and issuerKeyHash go before.
fn serial_of(id: &[u8]) -> Option<&[u8]> {
    let (_, id) = element(SEQUENCE, id)?;
    let (_, id) = element(OCTETS, id)?;
    let (_, id) = element(OCTETS, id)?;
    element(INTEGER, id).map(|(serial, _)| serial)
}

fn seconds(time: &[u8]) -> Option<i64> {
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", time).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The content of an element with this tag, and what stands behind it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    first(der).filter(|(found, ..)| *found == tag).map(|(_, content, behind)| (content, behind))
}

fn first(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x0F))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    }

    fn single(serial: &[u8], status: &[u8], next: Option<&[u8]>) -> Vec<u8> {
        let algorithm = der(SEQUENCE, &[&der(OBJECT_ID, &[&[0x2B]])]);
        let hash = der(OCTETS, &[&[7; 20]]);
        let id = der(SEQUENCE, &[&algorithm, &hash, &hash, &der(INTEGER, &[serial])]);
        let this = der(TIME, &[b"20261101000000Z"]);
        let next = next.map(|next| der(NEXT_UPDATE, &[&der(TIME, &[next])])).unwrap_or_default();
        der(SEQUENCE, &[&id, status, &this, &next])
    }

    fn response(status: u8, singles: &[Vec<u8>]) -> Vec<u8> {
        let responder = der(0xA2, &[&der(OCTETS, &[&[9; 20]])]);
        let singles = der(SEQUENCE, &[&singles.concat()]);
        let data = der(SEQUENCE, &[&responder, &der(TIME, &[b"20261101000000Z"]), &singles]);
        let basic = der(SEQUENCE, &[&data, &der(SEQUENCE, &[]), &der(0x03, &[&[0, 1]])]);
        let bytes = der(SEQUENCE, &[&der(OBJECT_ID, &[BASIC]), &der(OCTETS, &[&basic])]);
        der(SEQUENCE, &[&der(ENUMERATED, &[&[status]]), &der(FIRST, &[&bytes])])
    }

    const NEXT: Option<&[u8]> = Some(b"20261108000000Z");
    const IS_GOOD: &[u8] = &[GOOD, 0];

    #[test]
    fn a_good_one_holds_until_the_next() {
        let made = response(0, &[single(&[1], &[0x82, 0], NEXT), single(&[2, 3], IS_GOOD, NEXT)]);
        assert_eq!(good_until(&made, &[2, 3]), Ok(1_794_096_000));
    }

    #[test]
    fn everything_else_is_not_passed_on() {
        let revoked = der(0xA1, &[&der(TIME, &[b"20261101000000Z"])]);
        for (response, expected) in [
            (response(0, &[single(&[1], IS_GOOD, NEXT)]), OcspError::OtherCertificate),
            (response(0, &[single(&[2], &revoked, NEXT)]), OcspError::NotGood),
            (response(0, &[single(&[2], &[0x82, 0], NEXT)]), OcspError::NotGood),
            (response(0, &[single(&[2], IS_GOOD, None)]), OcspError::Endless),
            (response(0, &[single(&[2], IS_GOOD, Some(b"tomorrow"))]), OcspError::Malformed),
            (response(6, &[single(&[2], IS_GOOD, NEXT)]), OcspError::Malformed),
            (b"-----BEGIN".to_vec(), OcspError::Malformed),
            (Vec::new(), OcspError::Malformed),
        ] {
            assert_eq!(good_until(&response, &[2]), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(at in 0..400_usize, octet in any::<u8>(), cut in 0..400_usize) {
            let mut made = response(0, &[single(&[2], IS_GOOD, NEXT)]);
            if let Some(place) = made.get_mut(at) { *place = octet; }
            made.truncate(cut.max(1));
            if let Err(error) = good_until(&made, &[2]) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

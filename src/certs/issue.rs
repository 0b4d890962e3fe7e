//! Certificates of gwmon's own making: an authority that lives long, a leaf that it signs, and when to make either anew. No
//! files and no clock: the time is an argument.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::certificate::{CertificateInfo, Unusable, check, joined, still_valid, verify};

/// The authority's life.
const AUTHORITY_LIFE: Duration = Duration::days(365);
/// The leaf's life; never past the authority's.
const LEAF_LIFE: Duration = Duration::days(90);
/// Former authorities in the bundle, at most.
const FORMER: usize = 2;
/// Certificates begin this much before they are made, for clocks that are behind.
const BACKDATE: Duration = Duration::minutes(5);

/// An authority and a leaf, with their keys, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The authorities to trust: the current one first, then up to two former ones until they expire.
    pub authorities: String,
    /// The current authority's key.
    pub authority_key: String,
    /// The leaf.
    pub leaf: String,
    /// The leaf's key.
    pub leaf_key: String,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

/// Certificates that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that is not valid, or an authority that cannot be read.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The authority's certificate and its key do not belong together, or it has expired.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// A certificate authority, as PEM.
pub struct Authority {
    /// Its certificate, and perhaps those of former ones.
    pub certificates: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one, valid for so long.
    ///
    /// # Errors
    /// From rcgen.
    pub fn new(now: OffsetDateTime, life: Duration) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        // Two authorities must not share a name: a verifier would try the wrong one and give up.
        params.distinguished_name.push(DnType::CommonName, format!("gwmon CA {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = (now - BACKDATE, now + life);
        let key = KeyPair::generate()?;
        let pem = key.serialize_pem();
        Ok(Self { certificates: CertifiedIssuer::self_signed(params, key)?.pem(), key: pem })
    }

    /// A leaf for these names (DNS names and IP addresses), valid for so long, and no longer than the authority.
    ///
    /// # Errors
    /// [`Error`].
    pub fn issue(self, names: &[String], now: OffsetDateTime, life: Duration) -> Result<Certificates, Error> {
        let authority = CertificateInfo::of("ca.crt", &self.certificates)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificates, KeyPair::from_pem(&self.key)?)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "gwmon");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (now - BACKDATE, authority.not_after.min(now + life));
        let key = KeyPair::generate()?;
        let issued = Certificates {
            leaf: params.signed_by(&key, &issuer)?.pem(),
            leaf_key: key.serialize_pem(),
            authorities: self.certificates,
            authority_key: self.key,
        };
        issued.check(names, now)?;
        Ok(issued)
    }
}

impl Certificates {
    /// A new authority and a leaf for these names.
    ///
    /// # Errors
    /// A name that is not valid.
    pub fn new(names: &[String], now: OffsetDateTime) -> Result<Self, Error> {
        Authority::new(now, AUTHORITY_LIFE)?.issue(names, now, LEAF_LIFE)
    }

    /// The successor that is due: after two thirds of the validity (R5), for other names, or if a part cannot be
    /// used. The previous authority stays in the bundle while it is valid, so that clients trust replicas which still
    /// serve its leaf (R6).
    ///
    /// # Errors
    /// A name that is not valid.
    pub fn renewed(&self, names: &[String], now: OffsetDateTime) -> Result<Option<Self>, Error> {
        let Ok(authority) = CertificateInfo::of("ca.crt", &self.authorities) else {
            return Self::new(names, now).map(Some);
        };
        if authority.is_due(now) {
            let mut renewed = Self::new(names, now)?;
            renewed.authorities.push_str(&joined(still_valid(&self.authorities, now).take(FORMER)));
            return Ok(Some(renewed));
        }
        let is_current =
            CertificateInfo::of("tls.crt", &self.leaf).is_ok_and(|leaf| !leaf.is_due(now) && leaf.is_for(names));
        if is_current && self.check(names, now).is_ok() {
            return Ok(None);
        }
        let same = Authority { certificates: self.authorities.clone(), key: self.authority_key.clone() };
        // Somebody may have put another authority's key beside it.
        same.issue(names, now, LEAF_LIFE).or_else(|_| Self::new(names, now)).map(Some)
    }

    /// Checks that leaf, key and authorities belong together.
    fn check(&self, names: &[String], now: OffsetDateTime) -> Result<(), Unusable> {
        names.iter().try_for_each(|name| check(&self.leaf, &self.leaf_key, name, now))?;
        verify(("ca.crt", &self.authorities), &self.leaf, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["gwmon.gwmon.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    fn certificates(pem: &str) -> usize {
        pem.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn nothing_is_renewed_before_two_thirds_of_a_life() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let made = Certificates::new(&names(), start).unwrap();
        assert_eq!(made.renewed(&names(), start + Duration::days(59)).unwrap(), None);
        let renewed = made.renewed(&names(), start + Duration::days(61)).unwrap().unwrap();
        assert_eq!(renewed.authorities, made.authorities, "the authority outlives the leaf");
        assert_ne!(renewed.leaf, made.leaf);
    }

    #[test]
    fn an_old_authority_stays_in_the_bundle_until_it_ends() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let first = Certificates::new(&names(), start).unwrap();
        let second = first.renewed(&names(), start + Duration::days(244)).unwrap().unwrap();
        assert!(second.authorities.ends_with(&first.authorities) && certificates(&second.authorities) == 2);
        let third = second.renewed(&names(), start + Duration::days(488)).unwrap().unwrap();
        assert_eq!(certificates(&third.authorities), 2, "the first has ended");
        assert!(!third.authorities.contains(first.authorities.trim()));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority_and_covers_other_names_at_once() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let made = Certificates::new(&names(), start).unwrap();
        let late = made.renewed(&names(), start + Duration::days(240)).unwrap().unwrap();
        let info = |pem: &str| CertificateInfo::of("a certificate", pem).unwrap();
        assert!(info(&late.leaf).not_after <= info(&late.authorities).not_after);
        let others = vec!["other.svc".to_owned()];
        assert!(info(&made.renewed(&others, start).unwrap().unwrap().leaf).is_for(&others));
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_made_is_made_anew() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let mut made = Certificates::new(&names(), now + Duration::days(200)).unwrap();
        for _ in 0..3 {
            let renewed = made.renewed(&names(), now).unwrap().unwrap();
            assert_eq!(renewed.renewed(&names(), now).unwrap(), None, "and then it is right");
            assert!(certificates(&renewed.authorities) <= 3);
            // The clock jumps ahead and back again.
            made = renewed.renewed(&names(), now + Duration::days(300)).unwrap().unwrap();
        }
    }

    #[test]
    fn what_does_not_belong_together_is_made_anew() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let (own, other) = (Certificates::new(&names(), now).unwrap(), Certificates::new(&names(), now).unwrap());
        for broken in [
            Certificates { leaf_key: other.leaf_key.clone(), ..own.clone() },
            Certificates { leaf: other.leaf.clone(), leaf_key: other.leaf_key.clone(), ..own.clone() },
            Certificates { authority_key: other.authority_key.clone(), leaf: String::new(), ..own.clone() },
            Certificates { authorities: other.authorities.clone(), ..own.clone() },
        ] {
            let renewed = broken.renewed(&names(), now).unwrap().unwrap();
            renewed.check(&names(), now).unwrap();
            assert_eq!(renewed.renewed(&names(), now).unwrap(), None);
        }
    }

    #[test]
    fn what_cannot_be_read_is_made_anew() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let broken = Certificates {
            authorities: "x".into(),
            authority_key: "y".into(),
            leaf: "z".into(),
            leaf_key: String::new(),
        };
        assert!(broken.renewed(&names(), now).unwrap().is_some());
    }
}

//! What can be wrong with a source of revocation lists, and what to do about it.

use std::io;

use thiserror::Error;

use super::crl::LARGEST;
use crate::identity::states::timestamp;

/// What is wrong with a source of revocation lists. The list that was in use before stays in use.
#[derive(Debug, Error)]
pub enum CrlProblem {
    /// The server did not give it.
    #[error("the list cannot be fetched: {0}")]
    Fetch(String),
    /// The file cannot be read.
    #[error("the list cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// Larger than any list should be.
    #[error("the list has more than {LARGEST} bytes")]
    TooLarge,
    /// Not a list, or not all of one.
    #[error("this is not a revocation list, or it is cut short")]
    Malformed,
    /// Several lists in one file.
    #[error("there are {0} lists in one file")]
    Several(usize),
    /// No certificate of the issuer is known.
    #[error("the list is signed by {0}, whose certificate Relais does not have")]
    UnknownIssuer(String),
    /// The issuer's certificate is known, and the signature does not hold.
    #[error("the signature of {0} on the list does not hold")]
    BadSignature(String),
    /// It was made in the future.
    #[error("the list is not valid before {}", timestamp(*.0))]
    NotYetValid(i64),
    /// It does not say when its successor is due.
    #[error("the list does not say when the next one is due (nextUpdate)")]
    NoEnd,
    /// Its successor is overdue. What it names stays revoked.
    #[error("the next list was due at {}", timestamp(*.0))]
    Ended(i64),
    /// It has only what has changed since another list.
    #[error("this is a delta list, which has only what has changed")]
    Delta,
    /// It speaks for other authorities.
    #[error("this is an indirect list, which speaks for other authorities than its issuer")]
    Indirect,
    /// It is about attribute certificates, or about some reasons only.
    #[error("this is a partial list, which leaves out certificates or reasons")]
    Partial,
    /// It has an extension that it says must be understood, and that Relais does not know.
    #[error("the list has the critical extension {0}, which Relais does not know")]
    Extension(String),
    /// It is older than the one in use.
    #[error("the list of {} is older than the one in use", timestamp(*.0))]
    Older(i64),
}

impl CrlProblem {
    /// Whether it may pass without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::Unreadable(_))
    }

    /// The word for it in notices, always the same.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::Unreadable(_) => "unreadable",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Several(_) => "several",
            Self::UnknownIssuer(_) => "unknown_issuer",
            Self::BadSignature(_) => "bad_signature",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::NoEnd => "no_end",
            Self::Ended(_) => "ended",
            Self::Delta => "delta",
            Self::Indirect => "indirect",
            Self::Partial => "partial",
            Self::Extension(_) => "extension",
            Self::Older(_) => "older",
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Fetch(_) => {
                "it is tried again; see that this machine can reach the URL, or fetch it elsewhere and name the file"
            }
            Self::Unreadable(_) => "see that the file exists and that Relais may read it",
            Self::TooLarge | Self::Malformed => {
                "fetch it again; `openssl crl -inform der -noout -text -in FILE` shows what a list says"
            }
            Self::Several(_) => {
                "put each list in a file of its own, and name each in revocation.crls"
            }
            Self::UnknownIssuer(_) => {
                "put the certificate of that authority in the file that revocation.trust names"
            }
            Self::BadSignature(_) => {
                "fetch it again from the authority; if it has changed its key, put its new certificate in revocation.trust"
            }
            Self::NotYetValid(_) => "see that the clock of this machine is right",
            Self::Ended(_) => {
                "what it names stays revoked; fetch the next one, or ask the authority why there is none; if the source has gone over to another authority, empty the folder revocation.cache and restart"
            }
            Self::NoEnd | Self::Delta | Self::Indirect | Self::Partial | Self::Extension(_) => {
                "name the authority's complete list, which its certificates have under CRL distribution points"
            }
            Self::Older(_) => {
                "the one in use stays; ask whoever serves the URL why it has gone back"
            }
        }
    }
}

//! SOAP 1.2, as much of it as stand-ins need: reading one element out of a message, and writing answers.

use http::StatusCode;

use super::{Answer, reply};

const NAMESPACE: &str = "http://www.w3.org/2003/05/soap-envelope";

/// Where contexts and assertions are: at the start. A document of 50 MB behind them is not searched.
const HEADER_MAX: usize = 1 << 20;

/// A fault: which side is at fault, a code of the service's own below it, the reason, and a detail in XML.
pub(super) struct Fault<'a> {
    /// `Sender` or `Receiver`.
    pub(super) code: &'a str,
    pub(super) subcode: &'a str,
    pub(super) reason: &'a str,
    pub(super) detail: String,
}

impl Fault<'_> {
    pub(super) fn xml(&self) -> String {
        let Self {
            code,
            subcode,
            reason,
            detail,
        } = self;
        format!(
            "<S:Fault xmlns:S=\"{NAMESPACE}\"><S:Code><S:Value>S:{code}</S:Value><S:Subcode><S:Value>S:{subcode}</S:Value>\
             </S:Subcode></S:Code><S:Reason><S:Text xml:lang=\"en\">{}</S:Text></S:Reason><S:Detail>{detail}</S:Detail></S:Fault>",
            escaped(reason)
        )
    }
}

pub(super) fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <soap:Envelope xmlns:soap=\"{NAMESPACE}\"><soap:Body>{body}</soap:Body></soap:Envelope>"
    )
}

pub(super) fn message(status: StatusCode, body: &str) -> Answer {
    reply(
        status,
        "application/soap+xml; charset=utf-8",
        envelope(body),
    )
}

/// The same in a multipart message of one part (MTOM), which is how such services answer what came as MTOM.
pub(super) fn mtom(status: StatusCode, body: &str) -> Answer {
    const BOUNDARY: &str = "relais-simulator";
    let text = format!(
        "--{BOUNDARY}\r\ncontent-type: application/xop+xml; charset=utf-8; type=\"application/soap+xml\"\r\n\
         content-transfer-encoding: binary\r\ncontent-id: <root@simulator>\r\n\r\n{}\r\n--{BOUNDARY}--\r\n",
        envelope(body)
    );
    let content_type = format!(
        "multipart/related; type=\"application/xop+xml\"; boundary=\"{BOUNDARY}\"; \
         start=\"<root@simulator>\"; start-info=\"application/soap+xml\""
    );
    reply(status, &content_type, text)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The text of a message's start, where it is UTF-8 at all.
pub(super) fn head(body: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&body[..body.len().min(HEADER_MAX)])
}

/// A start tag: its local name, its attributes, and the text up to the next tag.
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    pub(super) attributes: &'a str,
    pub(super) text: &'a str,
}

/// The start tags of an XML text in turn. Tolerant: it is no parser, and what is not XML has no tags or odd ones.
pub(super) struct Tags<'a>(pub(super) &'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            let (_, after) = self.0.split_once('<')?;
            if let Some(comment) = after.strip_prefix("!--") {
                self.0 = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            let (inside, rest) = after.split_once('>')?;
            self.0 = rest;
            if inside.starts_with(['/', '?', '!']) {
                continue;
            }
            let inside = inside.trim_end_matches('/');
            let (name, attributes) = inside
                .split_once(|character: char| character.is_ascii_whitespace())
                .unwrap_or((inside, ""));
            return Some(Tag {
                name: name.rsplit(':').next().unwrap_or_default(),
                attributes,
                text: rest.split('<').next().unwrap_or_default().trim(),
            });
        }
    }
}

/// The text of the first element of that local name, possibly within the first one named `within`.
pub(super) fn text_of<'a>(xml: &'a str, within: Option<&str>, name: &str) -> Option<&'a str> {
    let mut tags = Tags(xml);
    if let Some(within) = within {
        tags.find(|tag| tag.name == within)?;
    }
    tags.find(|tag| tag.name == name).map(|tag| tag.text)
}

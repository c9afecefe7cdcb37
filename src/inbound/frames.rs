//! Frames of HTTP/2 that carry nothing, weighed against those that do.
//!
//! Each SETTINGS and each PING has to be answered, and CONTINUATION, PRIORITY, WINDOW_UPDATE and empty DATA looked at:
//! one connection can send a million of them a second, and have a worker for itself (CVE-2019-9512, CVE-2019-9515,
//! CVE-2019-9518, CVE-2024-27316). h2 bounds what they make it remember, but not the time that they take. Here a
//! connection has an allowance of such frames, which grows with what it really sends and takes.
//!
//! What is sent to it counts where it is part of a body (DATA), and nothing else does: a flood is answered, too, with
//! PING, SETTINGS, WINDOW_UPDATE, RST_STREAM. Heads of answers need not count, since each follows a request, which has.
//! A body, though, can be taken in crumbs by an application that opens its windows so far and no further
//! (CVE-2019-9511), one WINDOW_UPDATE for each: of small pieces, no more than so many a second add anything.

use std::time::{Duration, Instant};

/// Bytes in front of each frame (RFC 9113 section 4.1): a length of three, a type, flags, a stream.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PADDED: u8 = 8;

/// Frames without content that a connection may send at once. Clients send a handful when they begin, and one for each
/// stream that they give up.
const ALLOWANCE: i64 = 10_000;

/// What a frame with content adds to it: a window update, a priority and a reset for each are no flood.
const FOR_CONTENT: i64 = 8;

/// What a piece of a body that is sent to the peer adds: who takes a stream of small messages may say of each that it was
/// taken, for the stream and for the connection, and measure how long that took with a PING, as gRPC's libraries do.
const FOR_A_PIECE: i64 = 4;

/// Bytes of a piece that is no crumb: each costs the connection more than what it says of it.
const NO_CRUMB: usize = 256;

/// Smaller pieces that add something, in a second: more messages than anybody follows, and few enough for a worker to
/// send beside all else.
const SMALL_PIECES: u32 = 5_000;

/// When there are as many again.
const ANEW_AFTER: Duration = Duration::from_secs(1);

/// Bytes of a larger piece that add one more: the peer may say of each kilobyte that it has taken it.
const BYTES_FOR_ONE: usize = 1024;

/// What a second adds: an idle connection asks whether the other is still there, and may do so for ever.
const FOR_A_SECOND: i64 = 100;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    come: Headers,
    sent: Headers,
    allowance: i64,
    refilled: Instant,
    small: SmallPieces,
}

/// Small pieces of bodies that still add something.
#[derive(Debug)]
struct SmallPieces {
    left: u32,
    since: Instant,
}

impl SmallPieces {
    fn take(&mut self) -> bool {
        if self.left == 0 && self.since.elapsed() >= ANEW_AFTER {
            *self = Self::anew();
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }

    fn anew() -> Self {
        Self {
            left: SMALL_PIECES,
            since: Instant::now(),
        }
    }
}

impl Frames {
    /// Those of a connection of which nothing but the preface was read, and on which nothing was sent.
    pub(super) fn new() -> Self {
        Self {
            come: Headers::default(),
            sent: Headers::default(),
            allowance: ALLOWANCE,
            refilled: Instant::now(),
            small: SmallPieces::anew(),
        }
    }

    /// Looks at what the peer sends. False: it is a flood.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(header) = self.come.next(&mut bytes) {
            if !self.weigh(&header) {
                return false;
            }
        }
        true
    }

    fn weigh(&mut self, header: &Header) -> bool {
        let has_content = match header.kind {
            DATA => header.content > 0,
            HEADERS => true,
            _ => false,
        };
        if has_content {
            self.earn(FOR_CONTENT);
            return true;
        }
        self.allowance -= 1;
        if self.allowance < 0 {
            // The clock is looked at only by those who have sent that much.
            let seconds = self.refilled.elapsed().as_secs();
            self.refilled = Instant::now();
            self.earn(
                i64::try_from(seconds)
                    .map_or(ALLOWANCE, |seconds| seconds.saturating_mul(FOR_A_SECOND)),
            );
        }
        self.allowance >= 0
    }

    /// Looks at what was sent to the peer.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(header) = self.sent.next(&mut bytes) {
            let is_piece = header.kind == DATA && header.content > 0;
            if is_piece && (header.content >= NO_CRUMB || self.small.take()) {
                let more = i64::try_from(header.content / BYTES_FOR_ONE).unwrap_or(ALLOWANCE);
                self.earn(FOR_A_PIECE + more);
            }
        }
    }

    fn earn(&mut self, more: i64) {
        self.allowance = self.allowance.saturating_add(more).min(ALLOWANCE);
    }
}

/// What a frame begins with.
struct Header {
    kind: u8,
    /// Bytes of its payload that are not the padding of DATA.
    content: usize,
}

/// Finds the headers of frames in what goes one way, in whatever pieces.
#[derive(Debug, Default)]
struct Headers {
    /// Bytes that are no frame's header: the rest of a frame.
    skip: usize,
    /// And the length of the padding, which comes next where there is any (RFC 9113 section 6.1).
    header: [u8; HEADER + 1],
    has: usize,
}

impl Headers {
    /// The next header; takes what was looked at off the front of `bytes`.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Header> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        self.fill(HEADER, bytes)?;
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let is_padded = kind == DATA && flags & PADDED != 0 && length > 0;
        let (before, padding) = match is_padded {
            true => (1, usize::from(self.fill(HEADER + 1, bytes)?)),
            false => (0, 0),
        };
        self.has = 0;
        self.skip = length - before;
        Some(Header {
            kind,
            // More padding than there is room for is an error, which is hyper's to see.
            content: self.skip.saturating_sub(padding),
        })
    }

    /// Takes what is missing of so many bytes of a header, of which it returns the last if all are there.
    fn fill(&mut self, wanted: usize, bytes: &mut &[u8]) -> Option<u8> {
        let taken = wanted.saturating_sub(self.has).min(bytes.len());
        self.header[self.has..self.has + taken].copy_from_slice(&bytes[..taken]);
        self.has += taken;
        *bytes = &bytes[taken..];
        (self.has >= wanted).then(|| self.header[wanted - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, 0);
        frame
    }

    /// DATA with so much padding and content.
    fn padded(padding: u8, content: usize) -> Vec<u8> {
        let mut frame = frame(DATA, PADDED, 1 + content + usize::from(padding));
        frame[HEADER] = padding;
        frame
    }

    /// How many of these a connection may send before it is cut off, at most ten times the allowance.
    fn sent_before_the_cut(frames: &mut Frames, frame: &[u8]) -> i64 {
        (0..10 * ALLOWANCE)
            .take_while(|_| frames.read(frame))
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn frames_without_content_are_a_flood_beyond_the_allowance() {
        for flood in [
            frame(PING, 0, 8),
            frame(4, 0, 0),
            frame(9, 0, 16),
            frame(DATA, 0, 0),
            padded(0, 0),
            padded(255, 0),
            frame(DATA, PADDED, 0),
        ] {
            assert_eq!(
                sent_before_the_cut(&mut Frames::new(), &flood),
                ALLOWANCE,
                "{:?}",
                &flood[..HEADER]
            );
        }
    }

    #[test]
    fn requests_and_bodies_are_no_flood_nor_what_belongs_to_them() {
        let upload = [
            frame(HEADERS, 0, 40),
            frame(DATA, 0, 1),
            frame(3, 0, 4),
            frame(WINDOW_UPDATE, 0, 4),
        ];
        assert_eq!(
            sent_before_the_cut(&mut Frames::new(), &upload.concat()),
            10 * ALLOWANCE
        );
        for little in [padded(255, 1), padded(0, 1), padded(100, 155)] {
            let uploads = sent_before_the_cut(&mut Frames::new(), &little);
            assert_eq!(uploads, 10 * ALLOWANCE, "{:?}", &little[..=HEADER]);
        }
        // Who takes a long answer says so time and again.
        let mut frames = Frames::new();
        let taken = frame(WINDOW_UPDATE, 0, 4).repeat(16);
        for _ in 0..ALLOWANCE {
            frames.sent(&frame(DATA, 0, 16 * 1024));
            assert!(frames.read(&taken));
        }
    }

    #[test]
    fn who_takes_small_messages_may_say_so_of_each_and_measure_how_long_it_took() {
        let taken = [frame(WINDOW_UPDATE, 0, 4).repeat(2), frame(PING, 0, 8)].concat();
        for message in [5, 25, 300] {
            let mut frames = Frames::new();
            for number in 0..10 * SMALL_PIECES {
                if number % SMALL_PIECES == 0 {
                    frames.small.since -= ANEW_AFTER;
                }
                frames.sent(&frame(DATA, 0, message));
                assert!(frames.read(&taken), "messages of {message} bytes");
            }
        }
    }

    #[test]
    fn what_answers_a_flood_adds_nothing() {
        const SETTINGS: u8 = 4;
        for (flood, answer) in [
            (frame(PING, 0, 8), frame(PING, 1, 8)),
            (frame(SETTINGS, 0, 6), frame(SETTINGS, 1, 0)),
            (frame(WINDOW_UPDATE, 0, 4), frame(3, 0, 4)),
            (frame(DATA, 0, 0), frame(WINDOW_UPDATE, 0, 4)),
            (frame(WINDOW_UPDATE, 0, 4), frame(DATA, 1, 0)),
        ] {
            let mut frames = Frames::new();
            let sent = (0..10 * ALLOWANCE)
                .take_while(|_| {
                    frames.sent(&answer);
                    frames.read(&flood)
                })
                .count();
            assert_eq!(
                i64::try_from(sent),
                Ok(ALLOWANCE),
                "{:?}",
                &answer[..HEADER]
            );
        }
    }

    #[test]
    fn crumbs_add_little_however_many_are_taken() {
        for crumb in [1, 5, 255] {
            let mut frames = Frames::new();
            let taken = (0..10 * ALLOWANCE)
                .take_while(|_| {
                    frames.sent(&frame(DATA, 0, crumb));
                    frames.read(&frame(WINDOW_UPDATE, 0, 4))
                })
                .count();
            assert!(taken < 3 * ALLOWANCE as usize, "{crumb} bytes, {taken}");
        }
    }

    #[test]
    fn an_idle_connection_may_ask_for_ever_whether_the_other_is_there() {
        let mut frames = Frames::new();
        sent_before_the_cut(&mut frames, &frame(PING, 0, 8));
        frames.refilled = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        frames.allowance = 0;
        assert!(frames.read(&frame(PING, 0, 8)));
    }

    #[test]
    fn frames_are_counted_however_they_arrive() {
        let flood = frame(PING, 0, 8);
        let mut frames = Frames::new();
        let all = flood.repeat(3);
        for byte in all.chunks(1) {
            assert!(frames.read(byte));
        }
        assert_eq!(frames.allowance, ALLOWANCE - 3);
        let mut whole = Frames::new();
        assert!(whole.read(&all));
        assert_eq!(whole.allowance, frames.allowance);
        frames.allowance = 0;
        for byte in [padded(3, 0), padded(3, 1), padded(0, 0)]
            .concat()
            .chunks(1)
        {
            frames.read(byte);
        }
        assert_eq!(frames.allowance, FOR_CONTENT - 2);
        frames.allowance = 0;
        for byte in frame(DATA, 0, 2048).repeat(3).chunks(1) {
            frames.sent(byte);
        }
        assert_eq!(frames.allowance, 3 * (FOR_A_PIECE + 2));
    }
}

//! Frames of HTTP/2 that carry nothing, weighed against those that do.
//!
//! Each SETTINGS and each PING has to be answered, and CONTINUATION, PRIORITY, WINDOW_UPDATE and empty DATA looked at:
//! one connection can send a million of them a second, and have a worker for itself (CVE-2019-9512, CVE-2019-9515,
//! CVE-2019-9518, CVE-2024-27316). h2 bounds what they make it remember, but not the time that they take. Here a
//! connection has an allowance of such frames, which grows with what it really sends and takes.

use std::time::Instant;

/// Bytes in front of each frame (RFC 9113 section 4.1): a length of three, a type, flags, a stream.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PADDED: u8 = 8;

/// The longest padding and its length: a DATA frame of that size may carry nothing.
const LONGEST_PADDING: usize = 256;

/// Frames without content that a connection may send at once. Clients send a handful when they begin, and one for each
/// stream that they give up.
const ALLOWANCE: i64 = 10_000;

/// What a frame with content adds to it: a window update, a priority and a reset for each are no flood.
const FOR_CONTENT: i64 = 8;

/// Bytes sent to the peer that add one: it may say of each kilobyte that it has taken it.
const BYTES_FOR_ONE: usize = 1024;

/// What a second adds: an idle connection asks whether the other is still there, and may do so for ever.
const FOR_A_SECOND: i64 = 100;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that are no frame's header: the rest of a frame.
    skip: usize,
    header: [u8; HEADER],
    has: usize,
    allowance: i64,
    refilled: Instant,
    /// Bytes sent that have not added to the allowance yet.
    sent: usize,
}

impl Frames {
    /// Those of a connection of which nothing but the preface was read.
    pub(super) fn new() -> Self {
        Self {
            skip: 0,
            header: [0; HEADER],
            has: 0,
            allowance: ALLOWANCE,
            refilled: Instant::now(),
            sent: 0,
        }
    }

    /// Looks at what the peer sends. False: it is a flood.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.has).min(bytes.len());
            self.header[self.has..self.has + taken].copy_from_slice(&bytes[..taken]);
            self.has += taken;
            bytes = &bytes[taken..];
            if self.has == HEADER {
                self.has = 0;
                if !self.weigh() {
                    return false;
                }
            }
        }
        true
    }

    fn weigh(&mut self) -> bool {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let has_content = match kind {
            DATA => {
                self.skip
                    > if flags & PADDED == 0 {
                        0
                    } else {
                        LONGEST_PADDING
                    }
            }
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

    /// So many bytes were sent to the peer.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        let earned = self.sent / BYTES_FOR_ONE;
        self.sent %= BYTES_FOR_ONE;
        self.earn(i64::try_from(earned).unwrap_or(ALLOWANCE));
    }

    fn earn(&mut self, more: i64) {
        self.allowance = self.allowance.saturating_add(more).min(ALLOWANCE);
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
            frame(DATA, PADDED, 256),
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
        // Who takes a long answer says so time and again.
        let mut frames = Frames::new();
        for _ in 0..10 * ALLOWANCE {
            frames.sent(16 * 1024);
            assert!(frames.read(&frame(WINDOW_UPDATE, 0, 4)));
        }
    }

    #[test]
    fn an_idle_connection_may_ask_for_ever_whether_the_other_is_there() {
        let mut frames = Frames::new();
        sent_before_the_cut(&mut frames, &frame(PING, 0, 8));
        frames.refilled = Instant::now()
            .checked_sub(std::time::Duration::from_secs(2))
            .unwrap();
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
    }
}

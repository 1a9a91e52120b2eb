//! When a backend has said how many requests it takes at a time: its first frame is SETTINGS (RFC 9113, 3.4).

use tokio::sync::oneshot;

/// A frame's head (RFC 9113, 4.1), and what of it is the length.
const HEAD: usize = 9;
const LENGTH: usize = 3;

/// What was read of a backend's preface.
pub(super) struct Preface {
    seen: usize,
    length: usize,
    tell: Option<oneshot::Sender<()>>,
}

impl Preface {
    /// What it resolves to says that all of it was read, and an error that it never will be.
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        (Self { seen: 0, length: 0, tell: Some(tell) }, told)
    }

    /// This was read.
    pub(super) fn read(&mut self, octets: &[u8]) {
        if self.tell.is_none() {
            return;
        }
        for octet in octets.iter().take(LENGTH.saturating_sub(self.seen)) {
            self.length = self.length << 8 | usize::from(*octet);
        }
        self.seen = self.seen.saturating_add(octets.len());
        let is_there = self.seen.checked_sub(HEAD).is_some_and(|payload| payload >= self.length);
        if let Some(tell) = self.tell.take_if(|_| is_there) {
            // Nobody may be left to hear it.
            let _alone = tell.send(()).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_with_the_whole_frame_however_it_comes() {
        let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], &[0, 3, 0, 0, 0, 1]].concat();
        for length in [1, 2, 4, 9, 14, 15] {
            let (mut preface, mut told) = Preface::new();
            let (last, others) = settings.split_last().unwrap();
            others.chunks(length).for_each(|piece| preface.read(piece));
            assert!(told.try_recv().is_err(), "{length}");
            preface.read(&[*last, b'x']);
            assert_eq!(told.try_recv(), Ok(()), "{length}");
            preface.read(b"more");
        }
    }

    #[tokio::test]
    async fn one_that_ends_before_is_not_waited_for() {
        let (mut preface, told) = Preface::new();
        preface.read(&[0; 8]);
        drop(preface);
        assert!(told.await.is_err());
    }
}

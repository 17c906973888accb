//! Which part of an MP4's sound is the recording: edit lists.
//!
//! Codecs such as AAC begin with samples that only start them up (1024 or 2112 for AAC) and end on a whole
//! frame. An edit list (ISO 14496-12 §8.6.6) says where the recording begins in what is decoded and how
//! long it is; older files of iTunes say it in a comment, `iTunSMPB`. symphonia passes both over, so
//! they are read here before it gets the file: the movie's header is looked for among the outermost
//! boxes, and in it the first edit of each track that is not empty.
//!
//! Files are looked through by seeks. Of a stream all that stands before the sound is read and given
//! back in front of the rest. A box that makes no sense ends the search: whether the file is
//! sound is for the decoder to say.

use std::io::{Chain, Cursor, Read, Seek, SeekFrom};

/// No movie's header is longer: ten hours of AAC have 7 MB.
const LONGEST: u64 = 64 << 20;
/// How many outermost boxes may stand before it.
const MOST: usize = 1000;

/// The part of a track that is the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// The track's number.
    pub(super) track: u32,
    /// Where it begins, in ticks of the track.
    pub(super) start: u64,
    /// Ticks how long it is, and ticks a second; none where it goes on to the end.
    pub(super) length: Option<(u64, u32)>,
}

/// The edits of a file, which is then at its beginning again.
pub(super) fn of_file(source: &mut (impl Read + Seek)) -> Vec<Edit> {
    let movie = movie(source, |source, count| source.seek(SeekFrom::Current(count)).is_ok());
    match source.seek(SeekFrom::Start(0)) {
        Ok(_) => movie.map(|m| edits(&m)).unwrap_or_default(),
        Err(_) => vec![],
    }
}

/// The edits of a stream, and the stream from its beginning on.
pub(super) fn of_stream<R: Read>(mut stream: R) -> (Vec<Edit>, Chain<Cursor<Vec<u8>>, R>) {
    let mut head = vec![];
    let movie = {
        let mut read = Kept { stream: &mut stream, head: &mut head };
        // What stands before the header is short, or the header comes too late for a stream anyway.
        movie(&mut read, |read, count| count <= 1 << 20 && skipped(read, count as u64))
    };
    (movie.map(|m| edits(&m)).unwrap_or_default(), Cursor::new(head).chain(stream))
}

/// A stream that keeps what was read of it.
struct Kept<'a, R> {
    stream: &'a mut R,
    head: &'a mut Vec<u8>,
}

impl<R: Read> Read for Kept<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.head.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn skipped(stream: &mut impl Read, count: u64) -> bool {
    std::io::copy(&mut stream.take(count), &mut std::io::sink()).is_ok_and(|n| n == count)
}

/// The movie's header, without its own eight bytes.
fn movie<R: Read>(source: &mut R, skip: impl Fn(&mut R, i64) -> bool) -> Option<Vec<u8>> {
    for i in 0..MOST {
        let mut head = [0; 8];
        source.read_exact(&mut head).ok()?;
        let (size, kind) = (u32::from_be_bytes(head[..4].try_into().ok()?), &head[4..]);
        if i == 0 && kind != b"ftyp" {
            return None;
        }
        let inner = match size {
            1 => {
                let mut long = [0; 8];
                source.read_exact(&mut long).ok()?;
                u64::from_be_bytes(long).checked_sub(16)?
            }
            size => u64::from(size).checked_sub(8)?,
        };
        if kind == b"moov" {
            let mut bytes = vec![];
            source.take(inner.min(LONGEST)).read_to_end(&mut bytes).ok()?;
            return Some(bytes).filter(|b| b.len() as u64 == inner);
        }
        if !skip(source, i64::try_from(inner).ok()?) {
            return None;
        }
    }
    None
}

/// The boxes within one: their kinds and contents.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let size = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
        let (one, rest) = bytes.split_at_checked(size).filter(|_| size >= 8)?;
        bytes = rest;
        Some((&one[4..8], &one[8..]))
    })
}

/// The contents of the first box of a kind, along a path of kinds.
fn inside<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| boxes(bytes).find(|b| b.0 == **kind).map(|b| b.1))
}

/// A number of 4 bytes, or of 8 where the box is of version 1.
fn number(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    match wide {
        true => bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes),
        false => bytes.get(at..at + 4)?.try_into().ok().map(|b| u32::from_be_bytes(b).into()),
    }
}

/// Ticks a second of a movie's or a track's header.
fn scale(header: &[u8]) -> Option<u32> {
    let at = if *header.first()? == 1 { 20 } else { 12 };
    number(header, at, false)?.try_into().ok().filter(|n| *n > 0)
}

fn edits(movie: &[u8]) -> Vec<Edit> {
    let Some(second) = inside(movie, &[b"mvhd"]).and_then(scale) else { return vec![] };
    let tracks = || boxes(movie).filter(|b| b.0 == b"trak").map(|b| b.1);
    let number_of = |track| {
        let header = inside(track, &[b"tkhd"])?;
        number(header, if *header.first()? == 1 { 20 } else { 12 }, false).map(|n| n as u32)
    };
    let listed = |track| {
        let (start, length) = listed(inside(track, &[b"edts", b"elst"])?)?;
        Some(Edit { track: number_of(track)?, start, length: length.map(|l| (l, second)) })
    };
    let found: Vec<Edit> = tracks().filter_map(listed).collect();
    if !found.is_empty() {
        return found;
    }
    let commented = |track| {
        let (start, length) = commented(movie)?;
        let second = inside(track, &[b"mdia", b"mdhd"]).and_then(scale)?;
        Some(Edit { track: number_of(track)?, start, length: Some((length, second)) })
    };
    tracks().filter_map(commented).collect()
}

/// Where the first edit that is not empty begins, in the track's ticks, and how long it is, in the movie's, where
/// it is the only one.
fn listed(list: &[u8]) -> Option<(u64, Option<u64>)> {
    let wide = *list.first()? == 1;
    let each = if wide { 20 } else { 12 };
    let count = number(list, 4, false)?;
    let (mut found, mut only) = (None, true);
    for i in 0..(count as usize).min(list.len() / each) {
        let at = 8 + i * each;
        let (length, start) = (number(list, at, wide)?, number(list, at + each / 2 - 2, wide)?);
        // -1 is an empty edit: a pause before the sound, that players make and decoders do not.
        let empty = start > if wide { i64::MAX as u64 } else { i32::MAX as u64 };
        if empty {
            continue;
        }
        match found {
            None => found = Some((start, Some(length).filter(|l| *l > 0))),
            Some(_) => only = false,
        }
    }
    found.map(|(start, length)| (start, length.filter(|_| only)))
}

/// What iTunes wrote: ` 00000000 00000840 000001CA 00000000003F31F6 ..`, in hexadecimal the delay, what is filled
/// up at the end, and the samples between.
fn commented(movie: &[u8]) -> Option<(u64, u64)> {
    let meta = inside(movie, &[b"udta", b"meta"])?.get(4..)?;
    let comments = boxes(inside(meta, &[b"ilst"])?).filter(|b| b.0 == b"----").map(|b| b.1);
    let mut own = comments.filter(|c| inside(c, &[b"name"]).is_some_and(|n| n.ends_with(b"iTunSMPB")));
    let text = std::str::from_utf8(inside(own.next()?, &[b"data"])?.get(8..)?).ok()?;
    let mut words = text.split_whitespace().map(|w| u64::from_str_radix(w, 16).ok());
    let (_, delay, _, length) = (words.next()?, words.next()??, words.next()?, words.next()??);
    Some((delay, length)).filter(|(_, length)| *length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
        [&(contents.len() as u32 + 8).to_be_bytes()[..], kind, contents].concat()
    }

    fn words(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    /// A file of one track (number 7) of 44,100 ticks a second in a movie of 600.
    fn file(edits: Option<&[u32]>, comment: Option<&str>) -> Vec<u8> {
        let mut track = boxed(b"tkhd", &words(&[0, 0, 0, 7]));
        if let Some(edits) = edits {
            track.extend(boxed(b"edts", &boxed(b"elst", &words(&[&[0, edits.len() as u32 / 3], edits].concat()))));
        }
        track.extend(boxed(b"mdia", &boxed(b"mdhd", &words(&[0, 0, 0, 44_100, 1_000_000]))));
        let mut movie = [boxed(b"mvhd", &words(&[0, 0, 0, 600])), boxed(b"trak", &track)].concat();
        if let Some(comment) = comment {
            let name = boxed(b"name", &[&[0; 4][..], b"iTunSMPB"].concat());
            let data = boxed(b"data", &[&[0; 8][..], comment.as_bytes()].concat());
            let list = boxed(b"ilst", &boxed(b"----", &[name, data].concat()));
            movie.extend(boxed(b"udta", &boxed(b"meta", &[vec![0; 4], list].concat())));
        }
        [boxed(b"ftyp", b"M4A "), boxed(b"free", &[0; 100]), boxed(b"moov", &movie), boxed(b"mdat", &[1; 50])].concat()
    }

    fn found(file: &[u8]) -> Vec<(u64, Option<(u64, u32)>)> {
        let edits = of_file(&mut Cursor::new(file));
        let (streamed, mut rest) = of_stream(file);
        assert_eq!(streamed, edits);
        let mut bytes = vec![];
        rest.read_to_end(&mut bytes).expect("memory can be read");
        assert_eq!(bytes, file);
        edits.iter().map(|e| (e.start, e.length)).collect()
    }

    #[test]
    fn edits_and_comments_are_found() {
        let rate = 1 << 16;
        assert_eq!(found(&file(Some(&[1200, 1024, rate]), None)), [(1024, Some((1200, 600)))]);
        // A pause first; nothing said of the length; more than one edit.
        assert_eq!(found(&file(Some(&[60, u32::MAX, rate, 1200, 2112, rate]), None)), [(2112, Some((1200, 600)))]);
        assert_eq!(found(&file(Some(&[0, 1024, rate]), None)), [(1024, None)]);
        assert_eq!(found(&file(Some(&[5, 9, rate, 6, 90, rate]), None)), [(9, None)]);
        let comment = " 00000000 00000840 000001CA 00000000003F31F6 00000000";
        assert_eq!(found(&file(None, Some(comment))), [(2112, Some((0x3F_31F6, 44_100)))]);
        assert_eq!(found(&file(Some(&[1200, 1024, rate]), Some(comment))), [(1024, Some((1200, 600)))]);
        assert_eq!(found(&file(None, None)), []);
    }

    /// Cut or damaged anywhere: no panic, and the stream is given back whole.
    #[test]
    fn what_is_faulty_is_passed_over() {
        let good = file(Some(&[1200, 1024, 1 << 16]), Some(" 0 840 1CA 3F31F6"));
        for i in 0..good.len() {
            found(&good[..i]);
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bad = good.clone();
                bad[i] = value;
                found(&bad);
            }
        }
    }
}

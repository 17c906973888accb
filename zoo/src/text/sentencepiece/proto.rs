//! Reads and writes SentencePiece `.model` files.
//!
//! It is a protocol buffer, `ModelProto` of `sentencepiece_model.proto`: field 1 the pieces (text,
//! score, kind), 2 what training was told (kind of model, ids of special pieces, byte fallback), 3 how
//! text is normalised. The wire format is tags (field number and type), variable-length numbers, and
//! bytes with their length in front. Unknown fields are skipped; every length is checked against what is
//! there, so a broken file is an error and never more memory than its own size.

use super::{ModelFile, ModelKind, Piece, PieceKind};
use crate::text::error::TextError;

/// A field's value as it stands on the wire.
enum Wire<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
    Skipped,
}

/// Reads fields of a message one by one.
struct Fields<'a> {
    all: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn new(all: &'a [u8], what: &'static str) -> Fields<'a> {
        Fields { all, at: 0, what }
    }

    fn wrong(&self, why: impl std::fmt::Display) -> TextError {
        TextError::invalid("SentencePiece model", format!("{why} at byte {} of {}", self.at, self.what))
    }

    fn number(&mut self) -> Result<u64, TextError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.all.get(self.at).ok_or_else(|| self.wrong("the file ends within a number"))?;
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.wrong("a number has more than ten bytes"))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], TextError> {
        let left = &self.all[self.at..];
        let count = usize::try_from(count).ok().filter(|n| *n <= left.len());
        let count =
            count.ok_or_else(|| self.wrong(format!("expected more bytes than the {} that are left", left.len())))?;
        self.at += count;
        Ok(&left[..count])
    }

    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, TextError> {
        if self.at == self.all.len() {
            return Ok(None);
        }
        let tag = self.number()?;
        let (field, wire) = (tag >> 3, tag & 7);
        if field == 0 {
            return Err(self.wrong("expected a field's number, found 0: this is not a SentencePiece model"));
        }
        let value = match wire {
            0 => Wire::Number(self.number()?),
            1 => {
                self.take(8)?;
                Wire::Skipped
            }
            2 => {
                let count = self.number()?;
                Wire::Bytes(self.take(count)?)
            }
            5 => Wire::Fixed32(self.take(4)?.try_into().expect("four bytes were taken")),
            other => return Err(self.wrong(format!("expected a type of field (0, 1, 2 or 5), found {other}"))),
        };
        Ok(Some((field, value)))
    }

    fn text(&self, bytes: &[u8], name: &str) -> Result<String, TextError> {
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong(format!("{name} is not UTF-8")))
    }
}

/// Reads a `.model` file.
///
/// # Errors
/// What is not as the format has it, with the place.
pub fn read(bytes: &[u8]) -> Result<ModelFile, TextError> {
    let mut file = ModelFile::default();
    let mut fields = Fields::new(bytes, "the file");
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Wire::Bytes(inner)) => file.pieces.push(piece(inner)?),
            (2, Wire::Bytes(inner)) => trainer(inner, &mut file)?,
            (3, Wire::Bytes(inner)) => normalizer(inner, &mut file)?,
            _ => {}
        }
    }
    if file.pieces.is_empty() {
        return Err(TextError::invalid("SentencePiece model", "the file has no pieces"));
    }
    Ok(file)
}

fn piece(bytes: &[u8]) -> Result<Piece, TextError> {
    let mut fields = Fields::new(bytes, "a piece");
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Wire::Bytes(text)) => piece.text = fields.text(text, "a piece")?,
            (2, Wire::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
            (3, Wire::Number(kind)) => {
                piece.kind = PieceKind::from_number(kind)
                    .ok_or_else(|| fields.wrong(format!("expected a kind of piece from 1 to 6, found {kind}")))?;
            }
            _ => {}
        }
    }
    if piece.score.is_nan() {
        return Err(fields.wrong(format!("the score of piece `{}` is not a number", piece.text)));
    }
    Ok(piece)
}

fn trainer(bytes: &[u8], file: &mut ModelFile) -> Result<(), TextError> {
    let mut fields = Fields::new(bytes, "the trainer's settings");
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (3, Wire::Number(kind)) => {
                file.kind = match kind {
                    1 => ModelKind::Unigram,
                    2 => ModelKind::Bpe,
                    other => {
                        let name = ["words (3)", "characters (4)"].get(other.wrapping_sub(3) as usize);
                        return Err(TextError::unsupported(
                            "SentencePiece model",
                            format!("its kind is {}; unigram (1) and BPE (2) are built", name.unwrap_or(&"unknown")),
                        ));
                    }
                }
            }
            (24, Wire::Number(n)) => file.space_as_suffix = n != 0,
            (35, Wire::Number(n)) => file.byte_fallback = n != 0,
            (44, Wire::Bytes(text)) => file.unknown_surface = fields.text(text, "the unknown token's surface")?,
            // Ids are signed: -1 says that there is none.
            (41, Wire::Number(n)) => file.bos = u32::try_from(n as i64).ok(),
            (42, Wire::Number(n)) => file.eos = u32::try_from(n as i64).ok(),
            (43, Wire::Number(n)) => file.pad = u32::try_from(n as i64).ok(),
            _ => {}
        }
    }
    Ok(())
}

fn normalizer(bytes: &[u8], file: &mut ModelFile) -> Result<(), TextError> {
    let mut fields = Fields::new(bytes, "the normaliser's settings");
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (2, Wire::Bytes(map)) => file.charsmap = map.to_vec(),
            (3, Wire::Number(n)) => file.add_dummy_prefix = n != 0,
            (4, Wire::Number(n)) => file.remove_extra_whitespaces = n != 0,
            (5, Wire::Number(n)) => file.escape_whitespaces = n != 0,
            _ => {}
        }
    }
    Ok(())
}

/// Appends a number of variable length.
fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_field(out: &mut Vec<u8>, field: u64, value: u64) {
    put_number(out, field << 3);
    put_number(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_number(out, field << 3 | 2);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The bytes of a `.model` file.
pub fn write(file: &ModelFile) -> Vec<u8> {
    let mut out = vec![];
    for piece in &file.pieces {
        let mut inner = vec![];
        put_bytes(&mut inner, 1, piece.text.as_bytes());
        put_number(&mut inner, 2 << 3 | 5);
        inner.extend_from_slice(&piece.score.to_le_bytes());
        put_field(&mut inner, 3, piece.kind.number());
        put_bytes(&mut out, 1, &inner);
    }
    let mut trainer = vec![];
    put_field(&mut trainer, 3, if file.kind == ModelKind::Unigram { 1 } else { 2 });
    put_field(&mut trainer, 4, file.pieces.len() as u64);
    put_field(&mut trainer, 24, file.space_as_suffix.into());
    put_field(&mut trainer, 35, file.byte_fallback.into());
    // Ids are signed: -1 says that there is none.
    let id = |id: Option<u32>| id.map_or(-1i64 as u64, u64::from);
    for (field, value) in [(40, file.unknown), (41, file.bos), (42, file.eos), (43, file.pad)] {
        put_field(&mut trainer, field, id(value));
    }
    put_bytes(&mut trainer, 44, file.unknown_surface.as_bytes());
    put_bytes(&mut out, 2, &trainer);
    let mut normalizer = vec![];
    put_bytes(&mut normalizer, 1, if file.charsmap.is_empty() { b"identity" } else { b"user_defined" });
    put_bytes(&mut normalizer, 2, &file.charsmap);
    put_field(&mut normalizer, 3, file.add_dummy_prefix.into());
    put_field(&mut normalizer, 4, file.remove_extra_whitespaces.into());
    put_field(&mut normalizer, 5, file.escape_whitespaces.into());
    put_bytes(&mut out, 3, &normalizer);
    out
}

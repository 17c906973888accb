//! One matrix or vector of an archive: binary in single or double precision, compressed, or text.
//!
//! | token | values |
//! |---|---|
//! | `FM`, `DM` | rows of `f32`, `f64` |
//! | `FV`, `DV` | a vector: a matrix of one row |
//! | `CM` | columns of bytes, each byte between four quantiles of its column |
//! | `CM2`, `CM3` | rows of 16 or 8 bits between the least and the greatest value |

use std::io::{self, BufRead, Read};

/// Values by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// How many rows: frames, where it holds features.
    pub rows: usize,
    /// How many columns.
    pub cols: usize,
    /// The values, row by row.
    pub data: Vec<f32>,
}

/// A text matrix of more values than this is refused.
const MOST_TEXT: usize = 1 << 28;

impl Matrix {
    /// Some rows and columns, both ends included, as Kaldi writes ranges.
    pub(super) fn range(&self, rows: Option<(usize, usize)>, cols: Option<(usize, usize)>) -> Result<Matrix, String> {
        let within = |range: Option<(usize, usize)>, count: usize, what: &str| match range {
            None => Ok(0..count),
            Some((from, to)) if from <= to && to < count => Ok(from..to + 1),
            Some((from, to)) => Err(format!("{what} {from} to {to} of {count}")),
        };
        let (rows, cols) = (within(rows, self.rows, "rows")?, within(cols, self.cols, "columns")?);
        let data = rows.clone().flat_map(|r| &self.data[r * self.cols..][cols.clone()]).copied().collect();
        Ok(Matrix { rows: rows.len(), cols: cols.len(), data })
    }
}

/// Reads what follows a key. `left` is how many bytes the file has from there.
pub(super) fn read(reader: &mut impl BufRead, left: u64) -> Result<Matrix, String> {
    let io = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => "the file ends within it".to_string(),
        _ => e.to_string(),
    };
    if reader.fill_buf().map_err(io)?.first() != Some(&0) {
        return text(reader);
    }
    let mark: [u8; 2] = take(reader).map_err(io)?;
    if mark != *b"\0B" {
        return Err("a binary value begins with a zero and `B`".into());
    }
    let token = token(reader).map_err(io)?;
    match token.as_str() {
        "FM" | "DM" => {
            let (rows, cols) = (size(reader)?, size(reader)?);
            floats(reader, rows, cols, token == "DM", left)
        }
        "FV" | "DV" => {
            let cols = size(reader)?;
            floats(reader, 1, cols, token == "DV", left)
        }
        "CM" | "CM2" | "CM3" => compressed(reader, &token, left),
        other => Err(format!("a value of kind `{other}`; FM, DM, FV, DV, CM, CM2 and CM3 are known")),
    }
}

fn take<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A word and the space behind it.
fn token(reader: &mut impl Read) -> io::Result<String> {
    let mut word = String::new();
    loop {
        let [byte] = take(reader)?;
        if byte == b' ' || word.len() >= 8 {
            return Ok(word);
        }
        word.push(byte.escape_ascii().next().unwrap_or(b'?').into());
    }
}

/// A count: the number of its bytes, then those.
fn size(reader: &mut impl Read) -> Result<usize, String> {
    let found: [u8; 5] = take(reader).map_err(|e| e.to_string())?;
    let count = i32::from_le_bytes([found[1], found[2], found[3], found[4]]);
    match usize::try_from(count) {
        Ok(count) if found[0] == 4 => Ok(count),
        _ => Err(format!("a size of {count} in {} bytes; a count in 4 bytes is expected", found[0])),
    }
}

/// So many values of so many bytes, if the file can hold them.
fn values(reader: &mut impl Read, count: usize, each: usize, left: u64) -> Result<Vec<u8>, String> {
    let bytes = count.checked_mul(each).filter(|b| *b as u64 <= left);
    let bytes = bytes.ok_or_else(|| format!("{count} values of {each} bytes, and the file has {left} bytes left"))?;
    let mut all = Vec::new();
    reader.take(bytes as u64).read_to_end(&mut all).map_err(|e| e.to_string())?;
    if all.len() != bytes { Err("the file ends within it".into()) } else { Ok(all) }
}

fn area(rows: usize, cols: usize) -> Result<usize, String> {
    rows.checked_mul(cols).ok_or_else(|| format!("{rows} by {cols} values"))
}

fn floats(reader: &mut impl Read, rows: usize, cols: usize, double: bool, left: u64) -> Result<Matrix, String> {
    let bytes = values(reader, area(rows, cols)?, if double { 8 } else { 4 }, left)?;
    let data = match double {
        true => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        false => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    Ok(Matrix { rows, cols, data })
}

fn compressed(reader: &mut impl Read, token: &str, left: u64) -> Result<Matrix, String> {
    let words: [u8; 16] = take(reader).map_err(|e| e.to_string())?;
    let word = |i: usize| [words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]];
    let (least, range) = (f32::from_le_bytes(word(0)), f32::from_le_bytes(word(1)));
    let count = |i: usize| usize::try_from(i32::from_le_bytes(word(i))).map_err(|_| "a negative size".to_string());
    let (rows, cols) = (count(2)?, count(3)?);
    let area = area(rows, cols)?;
    let two = |b: &[u8; 2]| f32::from(u16::from_le_bytes(*b));
    let data = match token {
        "CM2" => {
            let step = range * (1.0 / 65535.0);
            values(reader, area, 2, left)?.as_chunks().0.iter().map(|b| least + two(b) * step).collect()
        }
        "CM3" => {
            let step = range * (1.0 / 255.0);
            values(reader, area, 1, left)?.iter().map(|b| least + f32::from(*b) * step).collect()
        }
        _ => {
            let quantiles = values(reader, cols, 8, left)?;
            let bytes = values(reader, area, 1, left)?;
            let mut data = vec![0.0; area];
            for (col, quantiles) in quantiles.as_chunks::<8>().0.iter().enumerate() {
                let at = |i: usize| least + range * 1.525_902_2e-5 * two(&[quantiles[2 * i], quantiles[2 * i + 1]]);
                let [p0, p25, p75, p100] = [at(0), at(1), at(2), at(3)];
                for row in 0..rows {
                    let byte = bytes[col * rows + row];
                    let x = f32::from(byte);
                    data[row * cols + col] = match byte {
                        0..=64 => p0 + (p25 - p0) * x * (1.0 / 64.0),
                        65..=192 => p25 + (p75 - p25) * (x - 64.0) * (1.0 / 128.0),
                        _ => p75 + (p100 - p75) * (x - 192.0) * (1.0 / 63.0),
                    };
                }
            }
            data
        }
    };
    Ok(Matrix { rows, cols, data })
}

/// `[ 1 2 3 ]`, or a row a line between brackets.
fn text(reader: &mut impl BufRead) -> Result<Matrix, String> {
    let (mut data, mut cols, mut rows, mut open) = (vec![], 0, 0, false);
    loop {
        let mut line = vec![];
        let read = reader.by_ref().take(1 << 26).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        if read == 0 {
            return Err("the file ends before a `]`".into());
        }
        let line = String::from_utf8(line).map_err(|_| "neither binary nor text".to_string())?;
        let mut row = 0;
        for word in line.split_whitespace() {
            match word {
                "[" if !open => open = true,
                "]" if open => {
                    rows += usize::from(row > 0);
                    if row > 0 && cols > 0 && row != cols {
                        return Err(format!("a row of {row} values after rows of {cols}"));
                    }
                    let cols = cols.max(row);
                    return Ok(Matrix { rows, cols, data });
                }
                _ if !open => return Err(format!("`{word}` where a `[` is expected")),
                _ => {
                    data.push(word.parse().map_err(|_| format!("`{word}` is no number"))?);
                    row += 1;
                }
            }
        }
        if row > 0 {
            if cols > 0 && row != cols {
                return Err(format!("a row of {row} values after rows of {cols}"));
            }
            (cols, rows) = (row, rows + 1);
        }
        if data.len() > MOST_TEXT {
            return Err(format!("more than {MOST_TEXT} values"));
        }
    }
}

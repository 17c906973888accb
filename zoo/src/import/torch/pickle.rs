//! A reader of Python's pickles that runs nothing.
//!
//! A pickle is a program for a small stack machine (`pickletools.py` in Python's library describes it), and
//! Python's own machine calls whatever function the program names. This one *calls nothing*: it knows the few
//! names that a checkpoint needs ([`Known`]), turns their calls into data, and refuses every other name. Values
//! live in an arena and refer to each other by number, so that a value that contains itself, or one nested a
//! million deep, is nothing special here; who walks through them has to count.

mod values;

use std::collections::HashMap;

pub use values::{Arena, Id, Known, TensorRef, Value};

/// No pickle is longer: those of the largest checkpoints have a few megabytes.
pub const LONGEST: u64 = 64 << 20;
/// A pickle that was read.
#[derive(Clone, Debug)]
pub struct Pickle {
    /// Its values.
    pub arena: Arena,
    /// The value that it stands for.
    pub root: Id,
    /// How many bytes it takes.
    pub len: usize,
}

/// Reads the pickle at the start of some bytes.
///
/// # Errors
/// What is no pickle, ends too early, is larger than any real one, or names what is not known.
pub fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine { bytes, at: 0, arena: Arena::default(), stack: Vec::new(), memo: HashMap::new() };
    let root = machine.run().map_err(|fault| format!("{fault} (at byte {} of its pickle)", machine.at))?;
    Ok(Pickle { arena: machine.arena, root, len: machine.at })
}

/// What lies on the stack.
#[derive(Clone, Copy)]
enum Item {
    Value(Id),
    Mark,
}

struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    arena: Arena,
    stack: Vec<Item>,
    memo: HashMap<u32, Id>,
}

impl<'b> Machine<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken =
            rest.get(..count).ok_or_else(|| format!("{count} bytes are expected, but only {} are left", rest.len()))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn long(&mut self) -> Result<usize, String> {
        let n = u64::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| format!("a length of {n} is not believed"))
    }

    /// A line of text, without its end.
    fn line(&mut self) -> Result<&'b str, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(1 << 16).position(|b| *b == b'\n').ok_or("a line does not end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line is no UTF-8 text".into())
    }

    fn text(&mut self, len: usize) -> Result<Value, String> {
        let bytes = self.take(len)?;
        Ok(Value::Text(std::str::from_utf8(bytes).map_err(|_| "a text is no UTF-8")?.to_string()))
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        let id = self.arena.add(value)?;
        self.stack.push(Item::Value(id));
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        match self.stack.pop() {
            Some(Item::Value(id)) => Ok(id),
            _ => Err("a value is expected on the stack".into()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(Item::Value(id)) => Ok(*id),
            _ => Err("a value is expected on the stack".into()),
        }
    }

    /// The values above the last mark, which goes too.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|i| matches!(i, Item::Mark)).ok_or("a mark is expected on the stack")?;
        let above = self.stack.split_off(mark);
        Ok(above.into_iter().filter_map(|i| if let Item::Value(id) = i { Some(id) } else { None }).collect())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("entry {key} of its memory is not there"))?;
        self.stack.push(Item::Value(id));
        Ok(())
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            let code = self.byte()?;
            if code == b'.' {
                let root = self.pop()?;
                return if self.stack.is_empty() { Ok(root) } else { Err("values are left on the stack".into()) };
            }
            self.step(code)?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            // Protocol and frame: nothing to do.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.stack.push(Item::Mark),
            b'0' => drop(self.stack.pop().ok_or("its stack is empty")?),
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(Item::Value(top));
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'I' => {
                let value = match self.line()? {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    number => number.trim().parse().map_or(Value::Opaque, Value::Int),
                };
                self.push(value)?;
            }
            b'J' => {
                let v = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(v.into()))?;
            }
            b'K' => {
                let v = self.byte()?;
                self.push(Value::Int(v.into()))?;
            }
            b'M' => {
                let v = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(v.into()))?;
            }
            b'L' => {
                let v = self.line()?.trim_end_matches('L').parse().map_or(Value::Opaque, Value::Int);
                self.push(v)?;
            }
            0x8a => {
                let len = self.byte()? as usize;
                let v = whole(self.take(len)?);
                self.push(v)?;
            }
            0x8b => {
                let len = self.u32()? as usize;
                let v = whole(self.take(len)?);
                self.push(v)?;
            }
            b'F' => {
                let v = self.line()?.trim().parse().map_err(|_| "a number cannot be read")?;
                self.push(Value::Float(v))?;
            }
            b'G' => {
                let v = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(v))?;
            }
            b'S' | b'V' => {
                let line = self.line()?;
                let quoted = |q| line.strip_prefix(q).and_then(|l| l.strip_suffix(q));
                let text = if code == b'S' { quoted('\'').or_else(|| quoted('"')).unwrap_or(line) } else { line };
                self.push(Value::Text(text.to_string()))?;
            }
            b'T' | b'X' => {
                let len = self.u32()? as usize;
                let v = self.text(len)?;
                self.push(v)?;
            }
            b'U' | 0x8c => {
                let len = self.byte()? as usize;
                let v = self.text(len)?;
                self.push(v)?;
            }
            0x8d => {
                let len = self.long()?;
                let v = self.text(len)?;
                self.push(v)?;
            }
            b'B' => {
                let len = self.u32()? as usize;
                self.take(len)?;
                self.push(Value::Bytes)?;
            }
            b'C' => {
                let len = self.byte()? as usize;
                self.take(len)?;
                self.push(Value::Bytes)?;
            }
            0x8e | 0x96 => {
                let len = self.long()?;
                self.take(len)?;
                self.push(Value::Bytes)?;
            }
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.marked()?;
                self.push(Value::List(items))?;
            }
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..code - 0x84 {
                    items.insert(0, self.pop()?);
                }
                self.push(Value::Tuple(items))?;
            }
            b'd' => {
                let items = self.marked()?;
                self.push(Value::Dict(pairs(&items)?))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.insert(pairs(&items)?)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id| self.arena.text(id).map(String::from).ok_or("a name is no text");
                let (module, name) = (text(module)?, text(name)?);
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            // The state of an ordered dictionary or a parameter: attributes, no values.
            b'b' => drop(self.pop()?),
            b'p' => {
                let key = self.line()?.parse().map_err(|_| "an entry of its memory has no number")?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)?;
            }
            b'r' => {
                let key = self.u32()?;
                self.remember(key)?;
            }
            0x94 => {
                let key = self.memo.len() as u32;
                self.remember(key)?;
            }
            b'g' => {
                let key = self.line()?.parse().map_err(|_| "an entry of its memory has no number")?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)?;
            }
            b'j' => {
                let key = self.u32()?;
                self.recall(key)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Storage(id))?;
            }
            b'i' | b'o' | 0x92 => return Err("it makes objects of classes, which is refused".into()),
            0x82..=0x84 => return Err("it refers to a registry of extensions, which is refused".into()),
            other => return Err(format!("instruction {other:#04x} is not known: it is no pickle, or damaged")),
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let to = self.top()?;
        match self.arena.get_mut(to) {
            Value::List(list) => list.extend(items),
            Value::Opaque => {}
            _ => return Err("values are appended to what is no list".into()),
        }
        Ok(())
    }

    fn insert(&mut self, items: Vec<(Id, Id)>) -> Result<(), String> {
        let to = self.top()?;
        match self.arena.get_mut(to) {
            Value::Dict(dict) => dict.extend(items),
            Value::Opaque => {}
            _ => return Err("entries are put into what is no dictionary".into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = Known::parse(module, name).ok_or_else(|| {
            format!(
                "it wants to call `{module}.{name}`, which is none of the names that a checkpoint of tensors needs; nothing was run. If you trust the file, save its tensors alone: `torch.save(model.state_dict(), ..)`"
            )
        })?;
        self.push(Value::Global(known))
    }

    fn call(&mut self, callee: Id, arguments: Id) -> Result<(), String> {
        let Value::Global(known) = self.arena.get(callee) else {
            return Err("it calls what is no function".into());
        };
        let Value::Tuple(arguments) = self.arena.get(arguments) else {
            return Err("the arguments of a call are no tuple".into());
        };
        let first = arguments.first().map(|id| self.arena.get(*id));
        let value = match (known, first) {
            (Known::Dict, first) => match first {
                // `OrderedDict([(key, value), ..])`
                Some(Value::List(items)) => {
                    let pair = |id: &Id| match self.arena.get(*id) {
                        Value::Tuple(pair) | Value::List(pair) => {
                            <[Id; 2]>::try_from(&pair[..]).ok().map(|[k, v]| (k, v))
                        }
                        _ => None,
                    };
                    Value::Dict(
                        items
                            .iter()
                            .map(pair)
                            .collect::<Option<_>>()
                            .ok_or("a dictionary is made of what are no pairs")?,
                    )
                }
                Some(Value::Dict(entries)) => Value::Dict(entries.clone()),
                _ => Value::Dict(Vec::new()),
            },
            (Known::List, Some(Value::List(items) | Value::Tuple(items))) => Value::List(items.clone()),
            (Known::List, _) => Value::List(Vec::new()),
            (Known::Tuple, Some(Value::List(items) | Value::Tuple(items))) => Value::Tuple(items.clone()),
            (Known::Tuple, _) => Value::Tuple(Vec::new()),
            (Known::Parameter, Some(tensor @ (Value::Tensor(_) | Value::Opaque))) => tensor.clone(),
            (Known::Tensor, _) => Value::Tensor(self.tensor(arguments, None)?),
            (Known::TensorOfType, _) => {
                let dtype = arguments.get(6).map(|id| self.arena.get(*id));
                let Some(Value::Global(Known::DType(dtype))) = dtype else {
                    return Err("a tensor has no type that is known".into());
                };
                Value::Tensor(self.tensor(arguments, Some(dtype))?)
            }
            (Known::Opaque, _) => Value::Opaque,
            (Known::Parameter | Known::Storage(_) | Known::DType(_), _) => {
                return Err("a storage, a type or a parameter is called in a way that is not known".into());
            }
        };
        self.push(value)
    }

    /// `(storage, offset, sizes, strides, ..)`
    fn tensor(&self, arguments: &[Id], dtype: Option<&'static str>) -> Result<TensorRef, String> {
        let [storage, offset, sizes, strides, ..] = arguments else {
            return Err(format!("a tensor is made of {} things, but at least 4 are expected", arguments.len()));
        };
        let Value::Storage(storage) = self.arena.get(*storage) else {
            return Err("a tensor is made of what is no storage".into());
        };
        let offset = self.arena.count(*offset).ok_or("a tensor's offset is no whole number")?;
        let sizes = self.arena.counts(*sizes).ok_or("a tensor's sizes are no whole numbers")?;
        let strides = self.arena.counts(*strides).ok_or("a tensor's strides are no whole numbers")?;
        match sizes.len() == strides.len() && sizes.len() <= 64 {
            true => Ok(TensorRef { storage: *storage, offset, sizes, strides, dtype }),
            false => Err(format!("a tensor has {} sizes and {} strides", sizes.len(), strides.len())),
        }
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|[k, v]| (*k, *v)).collect()),
        _ => Err("a dictionary has a key without a value".into()),
    }
}

/// A whole number of any length, two's complement, little-endian.
fn whole(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xFF } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

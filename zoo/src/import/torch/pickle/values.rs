//! What a pickle is made of: values in an arena, and the names that they may call.

/// No pickle has more values.
const MOST: usize = 8 << 20;

/// A value's number in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `True` and `False`
    Bool(bool),
    /// A whole number; those that 64 bits do not hold are [`Value::Opaque`].
    Int(i64),
    /// A real number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes, which no checkpoint needs.
    Bytes,
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    /// A dictionary, in order, with duplicates.
    Dict(Vec<(Id, Id)>),
    /// A name that is known.
    Global(Known),
    /// A storage: the persistent id that stands for it.
    Storage(Id),
    /// A tensor.
    Tensor(TensorRef),
    /// Something that is of no use here: a device, a number of numpy's.
    Opaque,
}

/// A tensor as a pickle describes it: a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorRef {
    /// The storage's persistent id: a tuple.
    pub storage: Id,
    /// Its first element in the storage.
    pub offset: u64,
    /// The size of each dimension.
    pub sizes: Vec<u64>,
    /// The distance of neighbours in each dimension, in elements.
    pub strides: Vec<u64>,
    /// Its type, where the storage has none.
    pub dtype: Option<&'static str>,
}

/// The names that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// `collections.OrderedDict` and its kin.
    Dict,
    /// `set`, `frozenset`, `list`.
    List,
    /// `tuple`, `torch.Size`.
    Tuple,
    /// `torch._utils._rebuild_tensor`, `_rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`, which has the type as an argument.
    TensorOfType,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `torch.FloatStorage` and its kin: the element's type, none for bytes.
    Storage(Option<&'static str>),
    /// `torch.float32` and its kin.
    DType(&'static str),
    /// What is called and of no use here.
    Opaque,
}

/// Storages and types by the names of their elements in safetensors.
const STORAGES: [(&str, &str, &str); 13] = [
    ("FloatStorage", "float32", "F32"),
    ("DoubleStorage", "float64", "F64"),
    ("HalfStorage", "float16", "F16"),
    ("BFloat16Storage", "bfloat16", "BF16"),
    ("LongStorage", "int64", "I64"),
    ("IntStorage", "int32", "I32"),
    ("ShortStorage", "int16", "I16"),
    ("CharStorage", "int8", "I8"),
    ("ByteStorage", "uint8", "U8"),
    ("BoolStorage", "bool", "BOOL"),
    ("ComplexFloatStorage", "complex64", "C64"),
    ("Float8_e4m3fnStorage", "float8_e4m3fn", "F8_E4M3"),
    ("Float8_e5m2Storage", "float8_e5m2", "F8_E5M2"),
];

impl Known {
    pub(super) fn parse(module: &str, name: &str) -> Option<Known> {
        Some(match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Known::Dict,
            ("builtins" | "__builtin__", "dict") => Known::Dict,
            ("builtins" | "__builtin__", "set" | "frozenset" | "list") => Known::List,
            ("builtins" | "__builtin__", "tuple") | ("torch", "Size") => Known::Tuple,
            // Types as values, and as the factories of a `defaultdict`.
            ("builtins" | "__builtin__", "int" | "float" | "bool" | "str" | "bytes" | "bytearray" | "complex") => {
                Known::Opaque
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Known::Tensor,
            ("torch._utils", "_rebuild_tensor_v3") => Known::TensorOfType,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Known::Parameter,
            ("torch.nn.parameter", "Parameter") => Known::Parameter,
            ("torch.storage" | "torch", "UntypedStorage") => Known::Storage(None),
            ("torch", "device") => Known::Opaque,
            ("_codecs", "encode") | ("numpy", "dtype") => Known::Opaque,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Known::Opaque,
            ("torch" | "torch.storage", name) => {
                let found = STORAGES.iter().find(|(storage, dtype, _)| *storage == name || *dtype == name)?;
                if found.0 == name { Known::Storage(Some(found.2)) } else { Known::DType(found.2) }
            }
            _ => return None,
        })
    }
}

/// The values of a pickle.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    values: Vec<Value>,
    /// Values and what they refer to, counted: a call may copy a list that stands in the pickle once.
    weight: usize,
}

impl Arena {
    /// A value.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    /// Text.
    pub fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(v) = self.get(id) { Some(v) } else { None }
    }

    /// A whole number that is not negative.
    pub fn count(&self, id: Id) -> Option<u64> {
        if let Value::Int(v) = self.get(id) { u64::try_from(*v).ok() } else { None }
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    pub(super) fn counts(&self, id: Id) -> Option<Vec<u64>> {
        let (Value::Tuple(items) | Value::List(items)) = self.get(id) else { return None };
        items.iter().map(|i| self.count(*i)).collect()
    }

    pub(super) fn add(&mut self, value: Value) -> Result<Id, String> {
        self.weight += match &value {
            Value::Tuple(items) | Value::List(items) => 1 + items.len() / 4,
            Value::Dict(entries) => 1 + entries.len() / 2,
            Value::Tensor(tensor) => 1 + tensor.sizes.len(),
            _ => 1,
        };
        if self.weight > MOST {
            return Err(format!("its pickle has more than {MOST} values"));
        }
        self.values.push(value);
        Ok(Id(self.values.len() as u32 - 1))
    }
}

//! `rows WHAT COLUMNS`: operations that read and write 64 MiB, in rows of so many values.

use crate::run::Fixed;
use mobilis::prelude::*;
use protocol::{Case, Refusal, number, tokens, uniform};

axes! { pub Rows; pub Columns; }

type Matrix = Tensor![Rows, Columns];

pub fn rows(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    let n = number(words, 2)?;
    let count = (64 << 20) / 4 / n;
    let x = <Array![Rows, Columns]>::new([count, n], uniform("x", count * n, 4.0))?;
    let model = Model::init_with((), 1, Sizes::new())?;
    macro_rules! of {
        (|$x:ident| $f:expr) => {
            Box::new(Fixed { program: model.compile(|_, $x: Matrix| $f)?, arrays: x })
        };
    }
    Ok(match words[1] {
        "softmax" => of!(|x| x.softmax(Columns)),
        "layer_norm" => of!(|x| x.layer_norm::<Columns>(None, None, 1e-5)),
        "rms_norm" => of!(|x| x.rms_norm::<Columns>(None, 1e-5)),
        "gelu" => of!(|x| x.gelu()),
        "cross_entropy" => {
            let y = <Array![Rows; Index]>::new([count], tokens("y", count, n))?;
            let program = model.compile(|_, (x, y): (Matrix, Tensor![Rows; Index])| x.cross_entropy(y))?;
            Box::new(Fixed { program, arrays: (x, y) })
        }
        other => return Err(format!("no operation `{other}`").into()),
    })
}

//! Pooling on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::pool::{AveragePool, AveragePoolGrad, MaxPool, MaxPoolGrad, Window, Windows};
use mobilis_cuda::pool::{self as kernel, Mean};

/// The last `spatial` sizes as a plane, and how many planes there are.
fn planes(sizes: &[usize], spatial: usize) -> ([usize; 2], usize) {
    let (lead, tail) = sizes.split_at(sizes.len() - spatial);
    (if spatial == 1 { [1, tail[0]] } else { [tail[0], tail[1]] }, lead.iter().product())
}

fn sliding(windows: &[Window], input: [usize; 2], output: [usize; 2]) -> kernel::Windows {
    let pair = |f: fn(&Window) -> u64, missing: usize| match windows {
        [rows, columns] => [f(rows) as usize, f(columns) as usize],
        _ => [missing, f(&windows[0]) as usize],
    };
    kernel::Windows {
        input,
        output,
        kernel: pair(|w| w.kernel, 1),
        stride: pair(|w| w.stride, 1),
        before: pair(|w| w.padding, 0),
        dilation: pair(|w| w.dilation, 1),
    }
}

pub fn max_pool(op: &MaxPool, cx: &mut Lower) -> Lowering {
    let n = op.windows.len();
    let (input, count) = planes(cx.input_sizes(0), n);
    let windows = sliding(&op.windows, input, planes(cx.output_sizes(0), n).0);
    let (x, y, positions) = (cx.input(0), cx.output(0), cx.output(1));
    cx.launch(kernel::max(&windows, count, x, y, positions)?);
    Ok(())
}

pub fn max_pool_grad(op: &MaxPoolGrad, cx: &mut Lower) -> Lowering {
    let ([rows, columns], count) = planes(cx.output_sizes(0), op.spatial);
    let [wide, high] = planes(cx.input_sizes(0), op.spatial).0;
    let (g, positions, x) = (cx.input(0), cx.input(1), cx.output(0));
    cx.launch(kernel::max_grad([count, wide * high, rows * columns], g, positions, x)?);
    Ok(())
}

/// How windows of means slide, and what these divide by.
fn means(windows: &Windows, input: [usize; 2], output: [usize; 2]) -> (kernel::Windows, Mean) {
    match windows {
        Windows::Sliding { windows, count_padding } => {
            (sliding(windows, input, output), if *count_padding { Mean::OfWindow } else { Mean::OfInputs })
        }
        Windows::Adaptive(_) => {
            let one = Window { kernel: 1, stride: 1, padding: 0, dilation: 1 };
            (sliding(&[one, one], input, output), Mean::Adaptive)
        }
    }
}

pub fn average_pool(op: &AveragePool, cx: &mut Lower) -> Lowering {
    let n = op.windows.spatial();
    let (input, count) = planes(cx.input_sizes(0), n);
    let (windows, mean) = means(&op.windows, input, planes(cx.output_sizes(0), n).0);
    let (x, y) = (cx.input(0), cx.output(0));
    cx.launch(kernel::average(&windows, mean, count, x, y)?);
    Ok(())
}

pub fn average_pool_grad(op: &AveragePoolGrad, cx: &mut Lower) -> Lowering {
    let n = op.windows.spatial();
    let (input, count) = planes(cx.output_sizes(0), n);
    let (windows, mean) = means(&op.windows, input, planes(cx.input_sizes(0), n).0);
    let (g, x) = (cx.input(0), cx.output(0));
    cx.launch(kernel::average_grad(&windows, mean, count, g, x)?);
    Ok(())
}

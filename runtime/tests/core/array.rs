//! Host arrays: sizes are checked where an array is made, conversions where values enter.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Time;
}
elements! {
    pub Ids: Index;
}

type Three = Const<3>;

#[test]
fn new_checks_count_and_static_axes() {
    let x = Array::<(Batch, Three)>::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    assert_eq!(x.sizes(), [2, 3]);
    assert_eq!(x.size(Batch), 2);
    assert_eq!(x[[1, 0]], 4.0);
    assert_eq!(x.get([2, 0]), None);

    let e = Array::<(Batch, Three)>::new([2, 4], vec![0.0; 8]).unwrap_err();
    assert_eq!(e.to_string(), "axis `3` of an array [Batch, 3] has size 3, but 4 is given");
    let e = Array::<(Batch, Three)>::new([2, 3], vec![0.0; 5]).unwrap_err();
    assert_eq!(e.to_string(), "an array [Batch, 3] of sizes [2, 3] holds 6 values, but 5 are given");
    let e = Array::<(Batch, Time)>::zeros([1 << 47, 1 << 20]).unwrap_err();
    assert!(matches!(e, ArrayError::TooLarge { .. }), "{e}");
    let empty = Array::<(Batch, Time)>::zeros([0, 1 << 47]).unwrap();
    assert!(empty.is_empty());
}

#[test]
fn axes_of_one_array_agree() {
    type Pairs = (Time, Prod<Const<2>, Time>);
    assert!(Array::<Pairs>::zeros([3, 6]).is_ok());
    let e = Array::<Pairs>::zeros([3, 5]).unwrap_err();
    assert_eq!(e.to_string(), "axis `(2 * Time)` of an array [Time, (2 * Time)] has size 2 * Time = 6, but 5 is given");
    let e = Array::<(Time, Time)>::zeros([3, 4]).unwrap_err();
    assert_eq!(e.to_string(), "axis `Time` of an array [Time, Time] has size Time = 3, but 4 is given");
    // A quotient alone does not determine its axis.
    assert!(Array::<(Floor<Time, Const<2>>,)>::zeros([3]).is_ok());
    assert!(Array::<(Floor<Time, Const<2>>, Time)>::zeros([3, 7]).is_ok());
    assert!(Array::<(Floor<Time, Const<2>>, Time)>::zeros([3, 8]).is_err());
}

#[test]
fn from_vec_infers_one_size() {
    let x = Array::<(Batch, Three)>::from_vec(vec![0.0; 12]).unwrap();
    assert_eq!(x.sizes(), [4, 3]);
    assert_eq!(Array::<(Three, Const<2>)>::from_vec(vec![0.0; 6]).unwrap().sizes(), [3, 2]);
    assert_eq!(Array::<(Batch, Three)>::from_vec(vec![]).unwrap().sizes(), [0, 3]);
    let e = Array::<(Batch, Three)>::from_vec(vec![0.0; 7]).unwrap_err();
    assert!(e.to_string().contains("`Batch`") && e.to_string().contains("rows of 3"), "{e}");
    let e = Array::<(Batch, Time)>::from_vec(vec![0.0; 6]).unwrap_err();
    assert!(e.to_string().contains("`Batch`, `Time`"), "{e}");
    assert!(matches!(Array::<(Three,)>::from_vec(vec![0.0; 4]).unwrap_err(), ArrayError::Count { found: 4, .. }));
    // The axis itself is inferred through the derived one.
    let x = Array::<(Prod<Const<2>, Time>,)>::from_vec(vec![0.0; 6]).unwrap();
    assert_eq!(x.sizes(), [6]);
    let e = Array::<(Prod<Const<2>, Time>,)>::from_vec(vec![0.0; 5]).unwrap_err();
    assert_eq!(e.to_string(), "axis `(2 * Time)` of an array [(2 * Time)] has size 2 * Time, but 5 is given");
}

#[test]
fn makers() {
    let x = Array::<(Batch, Three)>::from_fn([2, 3], |[b, i]| (10 * b + i) as f32).unwrap();
    assert_eq!(x.data(), [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    assert_eq!(x.iter().next_back(), Some(12.0));
    assert_eq!(Array::<(Three,), Mask>::zeros([3]).unwrap().to_vec(), [false; 3]);
    assert_eq!(Array::<(Three,), Index>::full([3], 7).unwrap().into_vec(), [7; 3]);
    assert_eq!(Array::<()>::scalar(2.5).item(), 2.5);
    assert_eq!(Array::<()>::from_vec(vec![2.5]).unwrap(), Array::scalar(2.5));
    assert_eq!(x.map(|v| v * 2.0)[[1, 2]], 24.0);
    let mask: Array<(Batch, Three), Mask> = x.map_to(|v| v > 1.0);
    assert_eq!(mask.data(), [false, false, true, true, true, true]);
    assert!(Array::<(Three,)>::from_fn([2], |_| 0.0).is_err());
}

#[test]
fn relabel_and_reshape() {
    let x: Array<(Batch, Const<4>)> = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]].into();
    let y = x.clone().reshape::<(Batch, Const<2>, Const<2>)>().unwrap();
    assert_eq!(y.sizes(), [2, 2, 2]);
    assert_eq!(y[[1, 0, 1]], 6.0);
    let flat = y.reshape::<(Prod<Batch, Const<4>>,)>().unwrap();
    assert_eq!(flat.sizes(), [8]);
    let z = flat.reshape_to::<(Batch, Const<4>)>([2, 4]).unwrap();
    assert_eq!(z, x);
    let renamed: Array<(Batch, Prod<Const<2>, Const<2>>)> = z.relabel();
    assert_eq!(renamed.sizes(), [2, 4]);
    let e = x.reshape_to::<(Prod<Const<4>, Batch>,)>([7]).unwrap_err();
    assert!(matches!(e, ArrayError::Size { .. } | ArrayError::Count { .. }), "{e}");
}

#[test]
fn values_are_range_checked() {
    let ids: Array<(Time,), Ids> = vec![1i64, 2, 3].try_into().unwrap();
    assert_eq!(ids.data(), [1, 2, 3]);
    let e = Array::<(Time,), Index>::try_from(vec![1i64, 1 << 40]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "value 1099511627776 at position 1 does not fit i32: whole numbers from -2147483648 to 2147483647"
    );
    assert!(Array::<(Time,), Index>::try_from(vec![u32::MAX]).is_err());
    assert!(Array::<(Time,), Index>::try_from(&[i32::MIN, i32::MAX][..]).is_ok());
    let reals = Array::<(Batch, Const<1>)>::from_values([2, 1], [0.1f64, f64::INFINITY]).unwrap();
    assert_eq!(reals.data(), [0.1f32, f32::INFINITY]);
    let e = Array::<(Batch,)>::try_from(vec![1e300f64]).unwrap_err();
    assert!(e.to_string().contains("does not fit f32"), "{e}");
}

#[test]
fn literals() {
    let v: Array<(Three,)> = [1.0, 2.0, 3.0].into();
    assert_eq!(v.sizes(), [3]);
    let m: Array<(Batch, Const<2>), Index> = [[1, 2], [3, 4], [5, 6]].into();
    assert_eq!((m.sizes(), m[[2, 1]]), (&[3, 2][..], 6));
    let t: Array<(Batch, Time, Const<1>), Mask> = [[[true], [false]]].into();
    assert_eq!(t.sizes(), [1, 2, 1]);
    assert_eq!(t.to_vec(), [true, false]);
}

#[test]
fn equality_is_by_sizes_and_values() {
    let a: Array<(Batch, Time)> = [[1.0, 2.0]].into();
    let b: Array<(Batch, Time)> = [[1.0], [2.0]].into();
    assert_ne!(a, b);
    assert_eq!(a, a.clone());
    let nan: Array<(Time,)> = [f32::NAN].into();
    assert_ne!(nan, nan.clone());
}

#[test]
fn pictures() {
    let m: Array<(Batch, Three)> = [[1.0, 2.0, 3.0], [4.0, 5.5, 6.0]].into();
    assert_eq!(format!("{m:?}"), "Array[Batch=2, 3; Real]\n[[1.0, 2.0, 3.0],\n [4.0, 5.5, 6.0]]");
    assert_eq!(format!("{m:.2?}"), "Array[Batch=2, 3; Real]\n[[1.00, 2.00, 3.00],\n [4.00, 5.50, 6.00]]");
    let long = Array::<(Time,), Index>::from_fn([20], |[i]| i as i32).unwrap();
    assert_eq!(format!("{long:?}"), "Array[Time=20; Index] [0, 1, 2, …, 17, 18, 19]");
    assert_eq!(format!("{:?}", Array::<(), Real>::scalar(1.0)), "Array[; Real] 1.0");
    assert_eq!(format!("{:?}", Array::<(Time,), Mask>::zeros([0]).unwrap()), "Array[Time=0; Mask] []");
    let tall = Array::<(Batch, Time)>::zeros([9, 1]).unwrap();
    assert_eq!(format!("{tall:?}").lines().count(), 8);
    let deep: Array<(Batch, Time, Const<1>)> = [[[1.0], [2.0]]].into();
    assert_eq!(format!("{deep:?}"), "Array[Batch=1, Time=2, 1; Real]\n[[[1.0],\n  [2.0]]]");
    assert_eq!(format!("{:?}", Array::<(Batch, Time, Const<1>)>::zeros([2, 0, 1]).unwrap()).lines().count(), 3);
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_both_ways() {
    let nd = ndarray::arr2(&[[1i64, 2, 3], [4, 5, 6]]);
    let x = Array::<(Batch, Three), Index>::try_from(nd.view()).unwrap();
    assert_eq!(x.data(), [1, 2, 3, 4, 5, 6]);
    // Any memory order.
    let turned = Array::<(Three, Batch), Index>::try_from(nd.t()).unwrap();
    assert_eq!(turned.data(), [1, 4, 2, 5, 3, 6]);
    assert_eq!(x.into_ndarray(), ndarray::arr2(&[[1i32, 2, 3], [4, 5, 6]]).into_dyn());
    let e = Array::<(Batch,), Index>::try_from(nd).unwrap_err();
    assert!(matches!(e, ArrayError::Rank { expected: 1, found: 2, .. }), "{e}");
}

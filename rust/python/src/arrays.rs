//! numpy arrays as slices, where they are contiguous row by row: numpy's own `as_slice` takes Fortran's order too.

use numpy::ndarray::Dimension;
use numpy::{Element, PyReadonlyArray, PyReadwriteArray, PyUntypedArrayMethods};

pub fn by_rows<'a, T: Element, D: Dimension>(array: &'a PyReadonlyArray<'_, T, D>) -> Option<&'a [T]> {
    array.as_slice().ok().filter(|_| array.is_c_contiguous())
}

pub fn by_rows_mut<'a, T: Element, D: Dimension>(array: &'a mut PyReadwriteArray<'_, T, D>) -> Option<&'a mut [T]> {
    let rows_first = array.is_c_contiguous();
    array.as_slice_mut().ok().filter(|_| rows_first)
}

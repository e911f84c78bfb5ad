// Preloaded by vectors.mjs: a clock that stands still and nonces that repeat, so that the same
// challenge is always answered by the same payment.
const NOW = 1_800_000_000;
Date.now = () => NOW * 1000;
crypto.getRandomValues = (array) => {
  array.forEach((_, index) => {
    array[index] = index + 1;
  });
  return array;
};

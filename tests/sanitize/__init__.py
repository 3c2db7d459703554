"""The core under the compilers' sanitizers: a fuzzer of hostile segments, and a search for data races."""

// Functions of numbers, of vectors of them too. Comparisons stand so that nan goes through, as in torch.
template <class V> TS_INLINE V larger(V a, V b) { return ((a > b) | (a != a)) ? a : b; }  // nan of either is nan
template <class V> TS_INLINE V smaller(V a, V b) { return ((a < b) | (a != a)) ? a : b; }
template <class V> TS_INLINE V above(V a, real low) { V l = splat<V>(low); return l > a ? l : a; }
template <class V> TS_INLINE V below(V a, real high) { V h = splat<V>(high); return h < a ? h : a; }
template <class V> TS_INLINE V relu(V a) { return V{} > a ? V{} : a; }
template <class V> TS_INLINE V absolute(V a) { return lanewise(a, [](real x) { return std::fabs(x); }); }
template <class V> TS_INLINE V root(V a) { return lanewise(a, [](real x) { return std::sqrt(x); }); }
template <class V> TS_INLINE V leaky(V a, real slope) { return a > V{} ? a : a * slope; }

// exp, to a relative 1e-7: 2^n of the nearest whole n, times a polynomial of the rest.
#if !TS_PLAIN
template <class V> struct Bits { typedef int32_t T __attribute__((vector_size(sizeof(V)))); };
template <> struct Bits<float> { typedef int32_t T; };
template <class I, class V> TS_INLINE I bits(V v) { I i; __builtin_memcpy(&i, &v, sizeof v); return i; }
template <class V> TS_INLINE V exponential(V x) {
  if constexpr (sizeof(real) == 8) {
    return lanewise(x, [](real a) { return std::exp(a); });
  } else {
    typedef typename Bits<V>::T I;
    V c = below(above(x, real(-86)), real(88.8));
    V shifted = c * real(1.44269504088896341) + real(12582912);  // the nearest whole number, in the last digits
    V n = shifted - real(12582912);
    V r = c - n * real(0.693359375) - n * real(-2.12194440e-4);
    V p = r * real(1.9875691500e-4) + real(1.3981999507e-3);
    p = p * r + real(8.3334519073e-3);
    p = p * r + real(4.1665795894e-2);
    p = p * r + real(1.6666665459e-1);
    p = p * r + real(5.0000001201e-1);
    p = p * r * r + r + real(1);
    I e = (bits<I>(shifted) - 0x4B400000 + 126) << 23;  // 2^(n - 1), as 2^128 is none
    V y = p * real(2) * bits<V>(e);
    y = x > splat<V>(real(88.7228)) ? splat<V>(real(INFINITY)) : y;
    return x < splat<V>(real(-86)) ? V{} : y;
  }
}
#else
template <class V> inline V exponential(V x) { return std::exp(x); }
#endif

// tanh as a quotient of polynomials, to 2e-7; in double as the library has it.
template <class V> TS_INLINE V hyperbolic(V x) {
  if constexpr (sizeof(real) == 8) {
    return lanewise(x, [](real a) { return std::tanh(a); });
  } else {
    x = below(above(x, real(-7.90531110763549805)), real(7.90531110763549805));
    V s = x * x;
    V n = s * real(-2.76076847742355e-16) + real(2.00018790482477e-13);
    n = n * s + real(-8.60467152213735e-11);
    n = n * s + real(5.12229709037114e-08);
    n = n * s + real(1.48572235717979e-05);
    n = n * s + real(6.37261928875436e-04);
    n = n * s + real(4.89352455891786e-03);
    V d = s * real(1.19825839466702e-06) + real(1.18534705686654e-04);
    d = d * s + real(2.26843463243900e-03);
    d = d * s + real(4.89352518554385e-03);
    return n * x / d;
  }
}
template <class V> TS_INLINE V logistic(V x) { return real(1) / (exponential(-x) + real(1)); }
template <class V> TS_INLINE V gate(V x) { return hyperbolic(x * real(0.5)) * real(0.5) + real(0.5); }  // of recurrences
#define TS_LANEWISE(name, of) \
  template <class V> TS_INLINE V name(V a) { return lanewise(a, [](real x) { return real(of); }); }
TS_LANEWISE(logarithm, std::log(x))
TS_LANEWISE(logarithm2, std::log2(x))
TS_LANEWISE(logarithm10, std::log10(x))
TS_LANEWISE(logarithm1p, std::log1p(x))
TS_LANEWISE(exponential_less_one, std::expm1(x))
TS_LANEWISE(error_function, std::erf(x))
TS_LANEWISE(sine, std::sin(x))
TS_LANEWISE(cosine, std::cos(x))
TS_LANEWISE(arctangent, std::atan(x))
TS_LANEWISE(arcsine, std::asin(x))
TS_LANEWISE(arccosine, std::acos(x))
TS_LANEWISE(tangent, std::tan(x))
TS_LANEWISE(hyperbolic_sine, std::sinh(x))
TS_LANEWISE(hyperbolic_cosine, std::cosh(x))
TS_LANEWISE(hyperbolic_arcsine, std::asinh(x))
TS_LANEWISE(hyperbolic_arccosine, std::acosh(x))
TS_LANEWISE(hyperbolic_arctangent, std::atanh(x))
TS_LANEWISE(error_function_left, std::erfc(x))
TS_LANEWISE(round_down, std::floor(x))
TS_LANEWISE(round_up, std::ceil(x))
TS_LANEWISE(round_even, std::nearbyint(x))
TS_LANEWISE(cut, std::trunc(x))
TS_LANEWISE(sign, (x > 0) - (x < 0))
#undef TS_LANEWISE
template <class V> TS_INLINE V raised(V a, V b) {
  return lanewise(a, b, [](real x, real y) { return std::pow(x, y); });
}
template <class V> TS_INLINE V angle(V a, V b) {
  return lanewise(a, b, [](real x, real y) { return std::atan2(x, y); });
}

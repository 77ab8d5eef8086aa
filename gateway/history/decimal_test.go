package history

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

func TestPack_GivesDecimalsBackBitForBit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hint, packed := 0, 0
	for range 500_000 {
		d := r.IntN(7)
		v, err := strconv.ParseFloat(strconv.FormatFloat((r.Float64()-0.5)*math.Pow10(r.IntN(8)), 'f', d, 64), 64)
		if err != nil {
			t.Fatal(err)
		}
		p, h := pack(v, hint)
		if got := unpack(p); math.Float64bits(got) != math.Float64bits(v) {
			t.Fatalf("pack(%v, %d) = %v, which unpacks to %v", v, hint, p, got)
		}
		if math.Abs(p-v) > 0.5*math.Pow10(-h) {
			t.Fatalf("pack(%v) = %v: other programs would see another figure", v, p)
		}
		if p != v {
			packed++
		}
		hint = h
	}
	if packed < 300_000 {
		t.Fatalf("only %d of 500000 decimals were packed", packed)
	}
}

func TestPack_RealNumbersStayWithinTheSixteenthDigit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	moved := 0
	for range 2_000_000 {
		v := (r.Float64() - 0.5) * math.Pow10(r.IntN(30)-15)
		p, _ := pack(v, r.IntN(5))
		if got := unpack(p); got != v {
			moved++
			if math.Abs(got-v) > 15*math.Abs(math.Nextafter(v, math.Inf(1))-v) {
				t.Fatalf("pack(%v) gives back %v", v, got)
			}
		}
	}
	if moved > 400 {
		t.Errorf("%d of 2000000 real numbers moved", moved)
	}
}

func TestPack_KeepsSpecialValues(t *testing.T) {
	for _, v := range []float64{
		0, math.Copysign(0, -1), 1, -1, math.MaxFloat64, math.Inf(1), math.Inf(-1), 1 << 53, 1<<53 - 1, 1<<49 + 1,
		0.1, 0.3, 1e-7, 123456789.125, 1.0 / 3, 2.2250738585072011e-308,
	} {
		for hint := range 4 {
			p, _ := pack(v, hint)
			if got := unpack(p); math.Float64bits(got) != math.Float64bits(v) {
				t.Errorf("pack(%v, %d) gives back %v", v, hint, got)
			}
		}
	}
	if p, _ := pack(math.NaN(), 3); !math.IsNaN(unpack(p)) {
		t.Error("NaN is lost")
	}
}

func FuzzPack(f *testing.F) {
	f.Add(20.37, 2)
	f.Add(math.Pi, 0)
	f.Add(0.1+0.2, 14)
	f.Fuzz(func(t *testing.T, v float64, hint int) {
		if math.IsNaN(v) || hint < 0 || hint > maxDecimals {
			return
		}
		p, _ := pack(v, hint)
		got := unpack(p)
		if math.IsInf(v, 0) && got != v || math.Abs(got-v) > 16*math.Abs(math.Nextafter(v, 0)-v) {
			t.Fatalf("pack(%v, %d) gives back %v", v, hint, got)
		}
	})
}

// What the packing is for: a chunk of decimals must cost what decimals are worth.
func TestPack_ChunksOfDecimalsStaySmall(t *testing.T) {
	for _, tc := range []struct {
		decimals int
		most     float64 // bytes a sample
	}{{0, 0.6}, {1, 2}, {2, 3}, {3, 3.5}} {
		r := rand.New(rand.NewPCG(1, 2))
		c := chunkenc.NewXORChunk()
		a, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		x, hint := 20.0, 0
		const n = 240
		for i := range n {
			x += r.NormFloat64() * 0.1
			scale := math.Pow10(tc.decimals)
			v := math.Round(x*scale) / scale
			if i%50 == 49 {
				v = 0 // a sensor that was unplugged for a moment
			}
			v, hint = pack(v, hint)
			a.Append(0, int64(i)*10_000, v)
		}
		if got := float64(len(c.Bytes())) / n; got > tc.most {
			t.Errorf("%d decimals take %.2f bytes a sample, want at most %.2f", tc.decimals, got, tc.most)
		}
	}
}

func BenchmarkPack(b *testing.B) {
	v := []float64{20.37, 20.41, 20.44, 20.4}
	hint := 0
	for i := 0; b.Loop(); i++ {
		_, hint = pack(v[i&3], hint)
	}
}

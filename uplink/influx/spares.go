package influx

// spares keeps what a request works with for the next: as many as are ever used at once, up to maxSpares. A sync.Pool would let go of them at
// every collection, and a compressor is a megabyte.
type spares[T any] chan *T

const maxSpares = 4

func newSpares[T any]() spares[T] { return make(spares[T], maxSpares) }

// get takes one, a zero value when there is none.
func (s spares[T]) get() *T {
	select {
	case v := <-s:
		return v
	default:
		return new(T)
	}
}

func (s spares[T]) put(v *T) {
	select {
	case s <- v:
	default:
	}
}

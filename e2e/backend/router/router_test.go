package router

import (
	"math"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestRoutesAreReturnedOnceInTheOrderOfThePoints(t *testing.T) {
	got, err := Routes(Request(Point{0, 10.5}, Point{0, -180}, Point{0, 10.9}, Point{0, 180}, Point{-90, 0}))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := got.MarshalJSON(); err != nil || string(text) != "[190,0,180]" {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestRoutesRejectInvalidCoordinates(t *testing.T) {
	for name, points := range map[string][]Point{
		"none":           nil,
		"too far north":  {{90.1, 0}},
		"too far west":   {{0, -180.1}},
		"not a number":   {{math.NaN(), 0}},
		"the second one": {{0, 0}, {0, math.Inf(1)}},
	} {
		if _, err := Routes(Request(points...)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want InvalidArgument", name, err)
		}
	}
}

package router

import (
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func at(latitude, longitude float64) *Point { return &Point{Latitude: latitude, Longitude: longitude} }

func TestRoutesAreReturnedOnceInTheOrderOfThePoints(t *testing.T) {
	points := []*Point{at(0, 10.5), at(0, -180), at(0, 10.9), at(0, 180), at(-90, 0)}
	got, err := Routes(&RecommendRequest{Points: points})
	if want := []uint32{190, 0, 180}; err != nil || !slices.Equal(got.GetRoutes(), want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestRoutesRejectInvalidCoordinates(t *testing.T) {
	for name, points := range map[string][]*Point{
		"none":           nil,
		"too far north":  {at(90.1, 0)},
		"too far west":   {at(0, -180.1)},
		"not a number":   {at(math.NaN(), 0)},
		"the second one": {at(0, 0), at(0, math.Inf(1))},
	} {
		if _, err := Routes(&RecommendRequest{Points: points}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want InvalidArgument", name, err)
		}
	}
}

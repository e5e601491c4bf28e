package main

import (
	"context"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
)

func TestRecommendReturnsEachRouteOnceInTheOrderOfThePoints(t *testing.T) {
	points := []*router.Point{{Longitude: 10.5}, {Longitude: -180}, {Longitude: 10.9}, {Longitude: 180}, {Latitude: -90}}
	got, err := service{}.Recommend(context.Background(), &router.RecommendRequest{Points: points})
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint32{190, 0, 180}; !slices.Equal(got.Routes, want) {
		t.Errorf("got %v, want %v", got.Routes, want)
	}
}

func TestRecommendRejectsInvalidCoordinates(t *testing.T) {
	for name, points := range map[string][]*router.Point{
		"none":           nil,
		"too far north":  {{Latitude: 90.1}},
		"too far west":   {{Longitude: -180.1}},
		"not a number":   {{Latitude: math.NaN()}},
		"the second one": {{}, {Longitude: math.Inf(1)}},
	} {
		_, err := service{}.Recommend(context.Background(), &router.RecommendRequest{Points: points})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want InvalidArgument", name, err)
		}
	}
}

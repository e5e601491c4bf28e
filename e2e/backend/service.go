package main

import (
	"context"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
)

// service implements router.Router.
type service struct {
	router.UnimplementedRouterServer
}

// routes is how many routes there are; each is a band of longitude that is 360/routes degrees wide.
const routes = 360

// Recommend returns the number of each route that a point lies on, in the order of the points and each once.
func (service) Recommend(_ context.Context, request *router.RecommendRequest) (*router.RecommendResponse, error) {
	if len(request.GetPoints()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "points: is empty, give at least one")
	}
	response := &router.RecommendResponse{}
	var seen [routes]bool
	for i, point := range request.GetPoints() {
		latitude, longitude := point.GetLatitude(), point.GetLongitude()
		// Written so that NaN fails too.
		if !(math.Abs(latitude) <= 90) || !(math.Abs(longitude) <= 180) {
			return nil, status.Errorf(codes.InvalidArgument, "points[%d]: %v, %v is not a place on Earth", i, latitude, longitude)
		}
		route := int(longitude+180) % routes
		if !seen[route] {
			seen[route] = true
			response.Routes = append(response.Routes, uint32(route))
		}
	}
	return response, nil
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// account is where a pod has its service account's token, the API server's certificate and the namespace.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// endpoints asks the API server which Envoys serve, as a cloud's controller does for its balancer.
type endpoints struct {
	url    string
	folder string // account, but in a test
	client *http.Client
}

func newEndpoints(folder, server string) (*endpoints, error) {
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	namespace, err := os.ReadFile(filepath.Join(folder, "namespace"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &endpoints{
		url:    "https://" + server + "/apis/discovery.k8s.io/v1/namespaces/" + string(namespace) + "/endpointslices?labelSelector=kubernetes.io/service-name=envoy",
		folder: folder,
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
	}, nil
}

// list returns host:port of each Envoy that serves. One that is told to end serves for as long as its readiness says so.
func (e *endpoints) list(ctx context.Context) (addresses []string, err error) {
	token, err := os.ReadFile(filepath.Join(e.folder, "token")) // it is renewed
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API server answers %s", response.Status)
	}
	var slices discoveryv1.EndpointSliceList
	if err := json.NewDecoder(response.Body).Decode(&slices); err != nil {
		return nil, err
	}
	return serving(slices.Items), nil
}

func serving(slices []discoveryv1.EndpointSlice) (addresses []string) {
	for _, slice := range slices {
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				if s := endpoint.Conditions.Serving; port.Port != nil && (s == nil || *s) {
					addresses = append(addresses, net.JoinHostPort(endpoint.Addresses[0], fmt.Sprint(*port.Port)))
				}
			}
		}
	}
	return addresses
}

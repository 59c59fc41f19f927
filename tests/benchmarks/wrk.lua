-- prints what wrk counted as one line of JSON
done = function(summary)
   io.write(string.format('{"requests":%d,"seconds":%f,"bytes":%d,"failed":%d}\n',
      summary.requests, summary.duration / 1e6, summary.bytes,
      summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
